"""Reading a declaration from its file, and saying what is wrong with it: file, line, name, value, cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from mlops_dagster.errors import ParameterError, refuse
from mlops_dagster.spec import limited_yaml
from mlops_dagster.spec.contradictions import contradictions
from mlops_dagster.spec.model import NAME, Dataset, Declaration
from mlops_dagster.spec.words import line_of, nearest

_Kind = TypeVar("_Kind", Dataset, Declaration)
FILE = "defs.yaml"
TYPE = "mlops_dagster.SklearnModel"
DATASET = "mlops_dagster.Dataset"


def read_declaration(file: Path) -> Declaration:
    """Read the declaration of a model from the ``defs.yaml`` of a Dagster component.

    Raises
    ------
    ParameterError
        If it can't be read, isn't YAML, or says something that no declaration can say. Each sentence begins with file
        and line.
    """
    return declared(*_attributes(file, TYPE))


def read_dataset(file: Path) -> Dataset:
    """Read a table that models share from the ``defs.yaml`` of a Dagster component.

    Raises
    ------
    ParameterError
        As :func:`read_declaration` says.
    """
    attributes, file, node = _attributes(file, DATASET)
    found = _valid(Dataset, attributes, file, node)
    if found.data.dataset is not None:
        where = line_of(node, ["attributes", "data", "dataset"])
        cure = f"a {DATASET} has rows of its own: give files, sql, a function or an asset."
        raise ParameterError(f"{file}:{where}: {refuse('data.dataset', found.data.dataset, cure)}")
    return found.at(file.parent)


def _attributes(file: Path, type_: str) -> tuple[dict[str, Any], Path, yaml.Node | None]:
    try:
        text = limited_yaml.text_of(file)
        said, node = limited_yaml.load(text), limited_yaml.compose(text)
    except (OSError, ValueError) as error:
        raise ParameterError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(said, dict) or said.get("type") != type_:
        found = said.get("type") if isinstance(said, dict) else said
        cure = f"a declaration begins with type: {type_}."
        if (type_, found) == (TYPE, DATASET):
            cure = "it is the table of models, and no model; name one that shares it."
        raise ParameterError(f"{file}:1: {refuse('type', found, cure)}")
    others = sorted(
        set(map(str, said)) - {"type", "attributes", "requirements", "post_processing", "template_vars_module"}
    )
    if others:
        where = line_of(node, [others[0]])
        raise ParameterError(f"{file}:{where}: {others[0]}: it belongs below attributes, indented by two blanks.")
    attributes = said.get("attributes")
    if not isinstance(attributes, dict):
        raise ParameterError(f"{file}: attributes is missing: what the model is stands below it.")
    return attributes, file, node


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
    attributes, dataset = _with_dataset(attributes, file, node)
    found = _valid(Declaration, attributes, file, node)
    problems = [f"{file}:{line_of(node, ['attributes', *place])}: {what}" for place, what in contradictions(found)]
    if problems:
        raise ParameterError("\n".join(problems))
    return found.at(file.parent, dataset=dataset)


def _valid(kind: type[_Kind], attributes: Mapping[str, Any], file: Path, node: yaml.Node | None) -> _Kind:
    name = file.parent.name
    if not NAME.fullmatch(name):
        cure = "name the folder of a model with 1 to 40 small letters, digits and _, beginning with a letter."
        raise ParameterError(f"{file}: {refuse('name', name, cure)}")
    try:
        return kind.model_validate(attributes)
    except ValidationError as error:
        raise ParameterError("\n".join(_wrong(one, file, node, kind) for one in _of_one_place(error))) from None


def _with_dataset(
    attributes: Mapping[str, Any], file: Path, node: yaml.Node | None
) -> tuple[Mapping[str, Any], Dataset | None]:
    """Return a model's attributes with those of the dataset that it names, and that; paths begin at the model's."""
    data = attributes.get("data")
    name = data.get("dataset") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(data or ()) > 1:
        return attributes, None
    where = f"{file}:{line_of(node, ['attributes', 'data', 'dataset'])}: "
    beside = file.parent.parent / name / FILE
    if not beside.is_file():
        there = sorted(one.parent.name for one in file.parent.parent.glob(f"*/{FILE}") if is_of(one, DATASET))
        cure = f"there is no {beside}; there are {', '.join(there) or 'no datasets'}."
        raise ParameterError(where + str(refuse("data.dataset", name, cure)))
    shared = read_dataset(beside)
    for one in ("contract", "key", "time", "group", "calendar", "partitions"):
        if one in attributes:
            line = line_of(node, ["attributes", one])
            raise ParameterError(f"{file}:{line}: {one}: the dataset {name} says it for all models; leave it out.")
    said = shared.model_dump(by_alias=True, exclude_unset=True, exclude={"description"})
    files = shared.data.files
    if files is not None and "://" not in files.path and not Path(files.path).expanduser().is_absolute():
        said["data"]["files"]["path"] = f"../{name}/{files.path}"
    if shared.data.function is not None:
        said["data"]["function"] = _from_beside(shared.data.function, name)
    if isinstance(shared.contract, str):
        said["contract"] = _from_beside(shared.contract, name)
    return {**attributes, **said}, shared


def _from_beside(function: str, name: str) -> str:
    own = function.startswith(".") and not function.startswith("..")
    return f"..{name}{function}" if own else function


def is_of(file: Path, type_: str) -> bool:
    """Whether a file is the declaration of a model (`TYPE`), or of a dataset."""
    begins = rf"^type:\s*['\"]?{re.escape(type_)}['\"]?\s*(#.*)?$"
    return re.search(begins, limited_yaml.text_of(file), re.M) is not None


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


def _wrong(error: Any, file: Path, node: yaml.Node | None, kind: type[Dataset]) -> str:
    place = error["loc"]
    where = f"{file}:{line_of(node, ['attributes', *place])}: "
    names = tuple(map(str, place))
    name = ".".join(names)
    if error["type"] == "extra_forbidden":
        return f"{where}{name}: there is no such setting; {nearest(names, kind)}"
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
