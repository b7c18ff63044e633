"""YAML of others, within limits: nine lines with aliases can stand for a billion values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SETTINGS_BYTES = 256 * 1024
SETTINGS_DEPTH = 32
SETTINGS_NODES = 50_000
"""Names and values of a settings file, each alias counted with all that it stands for."""


class _Loader(yaml.SafeLoader):
    """YAML that stays small, and in which a name can't be given twice: of two, PyYAML would drop the first."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > SETTINGS_DEPTH:
            raise ValueError(f"it is nested deeper than {SETTINGS_DEPTH} levels, which no settings are.")
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        if _size(node, {}) > SETTINGS_NODES:
            raise ValueError(f"its aliases stand for more than {SETTINGS_NODES:,} values; write out what is needed.")
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in names:
                raise ValueError(f"{name} is given twice (line {key.start_mark.line + 1}); remove one of the two.")
            names.add(name)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count a node's values as if each alias were written out."""
    if id(node) not in known:
        known[id(node)] = SETTINGS_NODES + 1  # what it is in itself: an alias of what it stands in
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for one in inside for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def text_of(file: Path) -> str:
    """Return a file's text, of a large one only as much as shows that it is too large."""
    with file.open("rb") as opened:
        return opened.read(SETTINGS_BYTES + 1).decode("utf-8")


def compose(text: str) -> yaml.Node | None:
    """Return what a text is as YAML, each value as it is written.

    Raises
    ------
    ValueError
        If it isn't YAML, or larger than any settings are.
    """
    node: yaml.Node | None = _read(text, "get_single_node")
    return node


def load(text: str) -> Any:
    """Return a YAML text's values.

    Raises
    ------
    ValueError
        If it isn't YAML, gives a name twice, or is larger than any settings are.

    Examples
    --------
    >>> load("store: {root: s3://bucket}")
    {'store': {'root': 's3://bucket'}}
    >>> load("a: &a [*a]")
    Traceback (most recent call last):
    ...
    ValueError: its aliases stand for more than 50,000 values; write out what is needed.
    """
    return _read(text, "get_single_data")


def _read(text: str, how: str) -> Any:
    if len(text) > SETTINGS_BYTES:
        raise ValueError(f"it is larger than {SETTINGS_BYTES // 1024} KiB, which no settings are.")
    try:
        loader = _Loader(text)
        try:
            return getattr(loader, how)()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"it isn't YAML{where}: {getattr(error, 'problem', None) or error}") from None
