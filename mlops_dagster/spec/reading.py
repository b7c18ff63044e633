"""Reading a declaration from its file, and saying what is wrong with it: file, line, name, value, cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlops_dagster.errors import ParameterError, refuse
from mlops_dagster.spec import limited_yaml
from mlops_dagster.spec.contradictions import contradictions
from mlops_dagster.spec.model import NAME, Declaration
from mlops_dagster.spec.words import line_of, nearest

FILE = "defs.yaml"
TYPE = "mlops_dagster.SklearnModel"


def read_declaration(file: Path) -> Declaration:
    """Read the declaration of a model from the ``defs.yaml`` of a Dagster component.

    Raises
    ------
    ParameterError
        If it can't be read, isn't YAML, or says something that no declaration can say. Each sentence begins with file
        and line.
    """
    try:
        text = limited_yaml.text_of(file)
        said, node = limited_yaml.load(text), limited_yaml.compose(text)
    except (OSError, ValueError) as error:
        raise ParameterError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(said, dict) or said.get("type") != TYPE:
        found = said.get("type") if isinstance(said, dict) else said
        raise ParameterError(f"{file}:1: {refuse('type', found, f'a declaration begins with type: {TYPE}.')}")
    others = sorted(
        set(map(str, said)) - {"type", "attributes", "requirements", "post_processing", "template_vars_module"}
    )
    if others:
        where = line_of(node, [others[0]])
        raise ParameterError(f"{file}:{where}: {others[0]}: it belongs below attributes, indented by two blanks.")
    attributes = said.get("attributes")
    if not isinstance(attributes, dict):
        raise ParameterError(f"{file}: attributes is missing: what the model is stands below it.")
    return declared(attributes, file, node)


def declared(attributes: Mapping[str, Any], file: Path, node: yaml.Node | None = None) -> Declaration:
    """Return the declaration that some attributes make, named after the folder of `file`.

    Parameters
    ----------
    node : yaml.Node, optional
        The whole file, for the lines.

    Raises
    ------
    ParameterError
        As :func:`read_declaration` says.
    """
    name = file.parent.name
    if not NAME.fullmatch(name):
        cure = "name the folder of a model with 1 to 40 small letters, digits and _, beginning with a letter."
        raise ParameterError(f"{file}: {refuse('name', name, cure)}")
    try:
        found = Declaration.model_validate(attributes)
    except ValidationError as error:
        raise ParameterError("\n".join(_wrong(one, file, node) for one in _of_one_place(error))) from None
    problems = [f"{file}:{line_of(node, ['attributes', *place])}: {what}" for place, what in contradictions(found)]
    if problems:
        raise ParameterError("\n".join(problems))
    return found.at(file.parent)


def _of_one_place(error: ValidationError) -> Iterator[Any]:
    """Return what is wrong, of a value that could be several things only what goes deepest."""
    errors = error.errors(include_url=False)
    places = [tuple(part for part in one["loc"] if not _is_a_type(part)) for one in errors]
    for at, (one, place) in enumerate(zip(errors, places, strict=True)):
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if not deeper and place not in places[:at]:
            yield {**one, "loc": place}


def _is_a_type(part: Any) -> bool:
    """Whether a part of pydantic's place says which of several types it tried."""
    return isinstance(part, str) and re.fullmatch(r"(dict|list)\[.*\]|str|int|float|bool|\[key\]", part) is not None


def _wrong(error: Any, file: Path, node: yaml.Node | None) -> str:
    place = error["loc"]
    where = f"{file}:{line_of(node, ['attributes', *place])}: "
    names = tuple(map(str, place))
    name = ".".join(names)
    if error["type"] == "extra_forbidden":
        return f"{where}{name}: there is no such setting; {nearest(names, Declaration)}"
    if error["type"] == "missing":
        return f"{where}{name} is missing; add it."
    what = str(error["msg"]).removeprefix("Value error, ").rstrip(".") + "."
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        meant = difflib.get_close_matches(str(error["input"]), choices, n=1)
        what = f"give {error['ctx']['expected']}." + (f" Did you mean {meant[0]}?" if meant else "")
    elif error["type"] == "string_type":
        what = "YAML doesn't take it for a text; quote it."
    if isinstance(error["input"], dict | list):
        return f"{where}{name}: {what}"
    return f"{where}{refuse(name, error['input'], what)}"
