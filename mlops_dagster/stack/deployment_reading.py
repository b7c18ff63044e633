"""Reading a deployment's YAML file, and putting what is wrong with its settings into words."""

from __future__ import annotations

import difflib
import json
import os
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from mlops_dagster.spec import limited_yaml
from mlops_dagster.spec.words import model_in, nearest, paths
from mlops_dagster.stack.secrets import is_secret_name
from mlops_dagster.stack.setting_problems import say

# Whatever is below one of these is somebody's own, and may be a secret: it is never repeated.
_NOT_REPEATED = frozenset(
    {"storage_options", "env", "master", "conf", "environment", "spark_env_vars", "spark_conf", "extra_tags"}
)


def read_file(file: Path) -> dict[str, Any]:
    """Return a file's settings.

    Raises
    ------
    ValueError
        If it isn't YAML, isn't UTF-8, holds no settings, gives one twice, or is larger than any settings are.
    OSError
        If it can't be read.
    """
    said = limited_yaml.load(limited_yaml.text_of(file))
    if said is None:
        return {}
    if not isinstance(said, dict):
        kind = "a list" if isinstance(said, list) else "a text" if isinstance(said, str) else "a number"
        raise ValueError(f"it holds {kind} where settings (`name: value`) should be, as in deployments/local.yaml")
    for name in _names_that_are_no_texts(said):
        raise ValueError(f"the name {name!r} is no text; YAML reads on, off, yes and no as true and false: quote it")
    return said


def as_written(file: Path, place: Sequence[str | int]) -> tuple[str, int] | None:
    """Return how a value stands in a file, before YAML made true of ON, and in which line; None if it isn't there."""
    node: Any = limited_yaml.compose(limited_yaml.text_of(file))
    for part in place:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            return None
    return (node.value, node.start_mark.line + 1) if isinstance(node, yaml.ScalarNode) else None


def _names_that_are_no_texts(said: Any) -> Iterator[Any]:
    if isinstance(said, dict):
        for name, value in said.items():
            if not isinstance(name, str):
                yield name
            yield from _names_that_are_no_texts(value)
    elif isinstance(said, list):
        for value in said:
            yield from _names_that_are_no_texts(value)


def wrong_settings(
    errors: list[Any],
    model: type[BaseModel],
    *,
    prefix: str,
    said_already: Collection[str] = (),
    file: Path | None = None,
) -> list[str]:
    """Put pydantic's findings into sentences.

    Parameters
    ----------
    errors : list of dict
        As ``ValidationError.errors()`` returns them.
    prefix : str
        That of the environment variables which override a file.
    said_already : collection of str
        Sentences about the same settings. Of an unknown one nothing more needs to be said.
    file : Path, optional
        Where the settings stand that no environment variable says.
    """
    known = {said.split(":")[0] for said in said_already}
    return [
        _wrong(error, model, prefix, file)
        for error in errors
        if error["type"] != "extra_forbidden" or ".".join(map(str, error["loc"])) not in known
    ]


def _wrong(error: Any, model: type[BaseModel], prefix: str, file: Path | None) -> str:
    place = tuple(str(part) for part in error["loc"] if part != "[key]")
    name = ".".join(place) or "deployment"
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting; {nearest(place, model)}"
    if error["type"] == "missing":
        return f"{name} is missing; add it."
    what = str(error["msg"]).removeprefix("Value error, ").rstrip(".") + "."
    if error["type"] in ("literal_error", "enum"):
        expected = error["ctx"]["expected"]
        choices = re.findall(r"'([^']*)'", expected)
        meant = difflib.get_close_matches(str(error["input"]), choices)
        what = f"give {expected}." + (f" Did you mean {meant[0]}?" if meant else "")
    value = error["input"]
    secret = bool(_NOT_REPEATED & set(place)) or any(is_secret_name(part) for part in place)
    variable = variable_of(tuple(part for part in place if not part.isdigit()), prefix, os.environ)
    if variable is not None:
        what += f" (It comes from the environment variable {variable}.)"
    elif error["type"] == "string_type" and file and (written := as_written(file, error["loc"])):
        text, line = written
        read = "a number" if isinstance(value, int | float) else "nothing" if value is None else "a date"
        read = str(value).lower() if isinstance(value, bool) else read
        what = f"YAML takes it for {read} (line {line}); quote it."
        if not secret:
            return f"{name}: YAML takes {text} for {read} (line {line}); quote it: '{text}'."
    if secret or isinstance(value, dict | list):
        return f"{name}: {what}"
    return say(name, value, what)


def variable_of(place: tuple[str, ...], prefix: str, given: Mapping[str, str]) -> str | None:
    """Return the environment variable that says a setting, if one does: its own, or that of a section it is in."""
    known = {name.upper(): name for name in given}
    for length in range(len(place), 0, -1):
        name = prefix + "__".join(part.upper() for part in place[:length])
        if name in known:
            return known[name]
    return None


def unreadable_variables(given: Mapping[str, str], model: type[BaseModel], prefix: str) -> list[str]:
    r"""Return what is wrong with the environment variables that should be JSON, a sentence each.

    Examples
    --------
    >>> from mlops_dagster.stack.deployment import Deployment
    >>> wrong = unreadable_variables({"MLOPS_DATABRICKS__LIBRARIES": "a,b"}, Deployment, "MLOPS_")
    >>> wrong[0].partition("; ")[2]
    'write MLOPS_DATABRICKS__LIBRARIES=\'["a", "b"]\'.'
    """
    found = []
    for path in paths(model):
        name = variable_of(path, prefix, given)
        field = _field(model, path)
        if name is None or len(name.removeprefix(prefix).split("__")) != len(path) or field is None:
            continue
        either = isinstance(field.annotation, types.UnionType)
        said = typing.get_args(field.annotation) if either else (field.annotation,)
        kinds = {typing.get_origin(one) or one for one in said}
        try:
            is_json = isinstance(json.loads(given[name]), dict | list) or str in kinds
        except (ValueError, RecursionError):
            is_json = False
        if is_json or (str in kinds and list not in kinds):
            continue
        if list in kinds:
            meant = json.dumps([part.strip() for part in given[name][:200].strip("[]").split(",")])
            found.append(f"{name}={given[name][:200]!r} is no list; write {name}='{meant}'.")
        elif dict in kinds or model_in(field.annotation) is not None:
            found.append(f'{name} is no object; write it as JSON: {name}=\'{{"name": "value"}}\'.')
    return found


def _field(model: type[BaseModel], path: tuple[str, ...]) -> Any:
    for part in path[:-1]:
        inner = model_in(model.model_fields[part].annotation)
        if inner is None:
            return None
        model = inner
    return model.model_fields.get(path[-1])


def unknown_variables(given: Collection[str], model: type[BaseModel], prefix: str) -> list[str]:
    """Return the environment variables that look like settings and are none: they change nothing, silently.

    Examples
    --------
    >>> from mlops_dagster.stack.deployment import Deployment
    >>> unknown_variables(["MLOPS_STOR__ROOT", "MLOPS_HOME"], Deployment, "MLOPS_")
    ['MLOPS_STOR__ROOT: there is no such setting, so it changes nothing; did you mean MLOPS_STORE__ROOT?']
    """
    sections = [*model.model_fields, "deployment"]
    found = []
    for name in sorted(given):
        section, *rest = name.removeprefix(prefix).lower().split("__")
        if not name.startswith(prefix) or section in sections:
            continue
        meant = difflib.get_close_matches(section, sections, n=1)
        cure = f"did you mean {prefix}{'__'.join([*meant, *rest]).upper()}?" if meant else "unset it."
        found.append(f"{name}: there is no such setting, so it changes nothing; {cure}")
    return found
