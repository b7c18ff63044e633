"""What pydantic finds wrong with YAML of others, in words: the name that was meant, the line where it stands."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import BaseModel


def nearest(place: tuple[str, ...], model: type[BaseModel]) -> str:
    """Say which setting was meant: the one with a similar name beside it, or the same name elsewhere."""
    above, wrong = place[:-1], place[-1]
    beside = _fields(model, above)
    begin = ".".join(above) + "." if above else ""
    if meant := difflib.get_close_matches(wrong.lower(), beside, n=1, cutoff=0.7):
        return f"did you mean {begin}{meant[0]}?"
    elsewhere = [".".join(path) for path in paths(model) if path[-1] == wrong]
    if elsewhere:
        return f"it belongs elsewhere: {' or '.join(elsewhere)}."
    everywhere = {path[-1]: ".".join(path) for path in paths(model)}
    if meant := difflib.get_close_matches(wrong.lower(), everywhere, n=1, cutoff=0.85):
        return f"did you mean {everywhere[meant[0]]}?"
    return f"{'below ' + '.'.join(above) if above else 'at the top'} there are {', '.join(beside)}."


def _fields(model: type[BaseModel], place: tuple[str, ...]) -> list[str]:
    for part in place:
        # What isn't a field is a name that users give, or a place in a list: what it holds is described above it.
        inner = model_in(annotation) if (annotation := _named(model).get(part)) is not None else model
        if inner is None:
            return []
        model = inner
    return list(_named(model))


def _named(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def paths(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return where each setting stands, those within others too."""
    for name, annotation in _named(model).items():
        yield (*above, name)
        if (inner := model_in(annotation)) is not None and inner is not model:
            yield from paths(inner, (*above, name))


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first model that a type holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := model_in(part)) is not None), None)


def line_of(node: yaml.Node | None, place: Sequence[str | int]) -> int:
    """Return in which line of a YAML text something stands, or what it would stand in; lines count from 1."""
    line = 1 if node is None else node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
