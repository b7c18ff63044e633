"""The run config of the assets: the parameters of the steps as the launchpad shows them.

Dagster checks names and types before a run starts; `OfModel.refuse_bad_run` checks the bounds for the whole run before
its first step works.
"""

from typing import Any, Literal

import dagster as dg
from pydantic import Field, create_model

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.spec.parameters import Step


class IntegerRange(dg.Config):
    """Integers from `start` to `stop`, both included, `step` apart."""

    start: int
    stop: int
    step: int


class NumberRange(dg.Config):
    """Numbers from `start` to `stop`, both included, `step` apart."""

    start: float
    stop: float
    step: float


_TYPES: dict[str, Any] = {"integer": int, "number": float, "boolean": bool, "text": str}
_LISTS: dict[str, Any] = {"integer": list[int], "number": list[float], "boolean": list[bool], "text": list[str]}
_RANGES: dict[str, Any] = {"integer": IntegerRange, "number": NumberRange}


def config_of(step: Step, model: OfModel) -> type[dg.Config]:
    """Make the run config of a step from its parameters."""
    fields: dict[str, Any] = {}
    for one in step.parameters:
        default = step.defaults.get(one.name)
        if one.kind == "grid":
            fields |= _grid_fields(model)
        elif default is None:  # Dagster's config knows no choice that may be left out
            fields[one.name] = _field(_TYPES[one.kind] | None, model.explain(one))
        else:
            kind = Literal[one.choices] if one.choices else _TYPES[one.kind]
            fields[one.name] = _field(kind, model.explain(one, default), default)
    return _config(step.name, step.description, fields)


def _grid_fields(model: OfModel) -> dict[str, Any]:
    """Return a grid's two fields: Dagster's config has none that is a list or a range."""

    def each(kinds: dict[str, Any], name: str, said: str) -> Any:
        ones = {one.name: _field(kinds[one.kind] | None, model.explain(one)) for one in model.grid if one.kind in kinds}
        return _config(name, said, ones) | None

    of_lists, of_ranges = model.grid_examples
    said = (
        f"A grid of your own, in place of a preset: lists of values, as in {of_lists}. Every combination is a "
        "candidate."
    )
    fields = {
        "grid": _field(each(_LISTS, "grid", "Lists of values to try. What isn't listed keeps its default."), said)
    }
    if of_ranges:
        also = f"Ranges in place of lists, alone or beside `grid`, as in {of_ranges}. They include their stop."
        fields["ranges"] = _field(each(_RANGES, "ranges", "Ranges of values to try."), also)
    return fields


def _field(kind: Any, said: str, default: Any = None) -> tuple[Any, Any]:
    return kind, Field(default=default, description=said)


def _config(name: str, said: str, fields: dict[str, Any]) -> type[dg.Config]:
    config: type[dg.Config] = create_model(f"{name}_config", __base__=dg.Config, __doc__=said, **fields)
    return config
