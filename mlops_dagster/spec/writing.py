"""Writing a declaration as the YAML that a person goes on with: in the reader's order, with a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from mlops_dagster.spec.reading import TYPE

_WORDS: Mapping[str, str] = {
    "contract": "What each column has to hold. Rows that break it are refused as a whole; nothing is filled in.",
    "key": "What identifies a row.",
    "time": "What orders the rows.",
    "group": "Rows of one group belong together.",
    "partitions": "A model for each.",
    "features": "What the model sees of a row.",
    "target": "What it learns to say.",
    "split": "The rows that it is tested on, and never learns from.",
    "estimator": "What learns.",
    "parameters": "What people may change, in every tool: --max-depth in the shell, a field in Dagster's launchpad.",
    "metrics": "How good it is, on the test rows; the first counts.",
    "baseline": "What it has to be better than.",
    "search": "Other parameters to try.",
    "gate": "A new model becomes the champion if it is better on the same rows, and by more than luck.",
    "predictions": "What the champion is asked.",
}
# One line for each of what they hold, since that is what people look through.
_A_LINE_EACH = ("contract", "parameters")


def yaml_of(attributes: Mapping[str, Any], comments: Mapping[str, str], head: str) -> str:
    """Return the text of a ``defs.yaml``.

    Parameters
    ----------
    comments : mapping of str to str
        More words to some of the attributes.
    head : str
        What stands above all, in lines.

    Examples
    --------
    >>> print(yaml_of({"task": "regression", "key": ["no", "Größe"]}, {"key": "found by its name"}, "It is yours."))
    # It is yours.
    type: mlops_dagster.SklearnModel
    <BLANKLINE>
    attributes:
      task: regression
    <BLANKLINE>
      # What identifies a row. (found by its name)
      key: ["no", Größe]
    <BLANKLINE>
    """
    lines = [*(f"# {line}".rstrip() for line in head.splitlines()), f"type: {TYPE}", "", "attributes:"]
    for name, value in attributes.items():
        words = [_WORDS[name]] if name in _WORDS else []
        words += [f"({comments[name]})"] if name in comments else []
        if words:
            lines += ["", f"  # {' '.join(words)}"]
        if name in _A_LINE_EACH:
            lines.append(f"  {name}:")
            lines += [f"    {_flow(one)}: {_flow(rule)}" for one, rule in value.items()]
        elif name == "features" and isinstance(value, list):
            lines.append(f"  {name}:")
            lines += [f"    - {_flow(one)}" for one in value]
        elif isinstance(value, Mapping) and any(isinstance(one, Mapping) for one in value.values()):
            lines.append(f"  {name}:")
            lines += _nested(value, "    ")
        elif isinstance(value, Mapping):
            lines.append(f"  {name}:")
            lines += [f"    {one}: {_flow(inner)}" for one, inner in value.items()]
        else:
            lines.append(f"  {name}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _nested(value: Mapping[str, Any], margin: str) -> list[str]:
    lines = []
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner and margin == "    ":
            lines += [f"{margin}{name}:", *_nested(inner, margin + "  ")]
        else:
            lines.append(f"{margin}{_flow(name)}: {_flow(inner)}")
    return lines


class _Dumper(yaml.SafeDumper):
    """Texts that YAML would take for something else stand in double quotes, as people write them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    resolved: Any = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    allowed: Any = dumper.analyze_scalar(text)
    plain = resolved == "tag:yaml.org,2002:str" and allowed.allow_flow_plain
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def _flow(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=1_000_000, sort_keys=False
    )
    return text.removesuffix("...\n").strip()
