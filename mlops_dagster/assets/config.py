"""The run config of the assets: the parameters of `pipelines.py` as the launchpad shows them.

Dagster checks names and types before a run starts; `refuse_bad_config` checks the bounds for the whole run before its
first step works.
"""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
import yaml
from pydantic import Field, create_model

from mlops_dagster import grids, pipelines
from mlops_dagster.errors import ParameterError, refuse


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
_LISTS: dict[str, Any] = {"integer": list[int], "number": list[float], "boolean": list[bool]}
_RANGES: dict[str, Any] = {"integer": IntegerRange, "number": NumberRange}


def config_of(step: pipelines.Step) -> type[dg.Config]:
    """Make the run config of a step from its parameters."""
    fields: dict[str, Any] = {}
    for one in step.parameters:
        default = step.defaults.get(one.name)
        if one.kind == "grid":
            fields |= _grid_fields()
        elif default is None:  # Dagster's config knows no choice that may be left out
            fields[one.name] = _field(one, _TYPES[one.kind] | None)
        else:
            fields[one.name] = _field(one, Literal[one.choices] if one.choices else _TYPES[one.kind], default)
    return _config(step.name, step.description, fields)


def _grid_fields() -> dict[str, Any]:
    """Return a grid's two fields: Dagster's config has none that is a list or a range."""
    lists = {one.name: _field(one, _LISTS[one.kind] | None) for one in pipelines.FOREST}
    ranges = {one.name: _field(one, _RANGES[one.kind] | None) for one in pipelines.FOREST if one.kind in _RANGES}
    grid = _config("grid", "Lists of values to try. What isn't listed stays the recipe's.", lists)
    some = _config("ranges", "Ranges of values to try.", ranges)
    said = (
        "A grid of your own, in place of a preset: lists of values, as in {max_depth: [80, 90], n_estimators: "
        "[100, 200]}. Every combination is a candidate."
    )
    also = (
        "Ranges in place of lists, alone or beside `grid`, as in {n_estimators: {start: 100, stop: 500, step: 100}}. "
        "They include their stop."
    )
    return {
        "grid": (grid | None, Field(default=None, description=said)),
        "ranges": (some | None, Field(default=None, description=also)),
    }


def _field(one: pipelines.Parameter, kind: Any, default: Any = None) -> tuple[Any, Any]:
    return kind, Field(default=default, description=pipelines.explain(one.name))


def _config(name: str, said: str, fields: dict[str, Any]) -> type[dg.Config]:
    config: type[dg.Config] = create_model(f"{name}_config", __base__=dg.Config, __doc__=said, **fields)
    return config


def search_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a search as `pipelines.SEARCH` has them: lists and ranges are one grid.

    Parameters
    ----------
    config : mapping
        As users wrote it, or as the step's config has it, defaults filled in.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If a parameter has a list and a range.
    """
    given = {name: value for name, value in config.items() if name not in ("grid", "ranges")}
    grid: dict[str, Any] = {}
    for values in (config.get("grid"), config.get("ranges")):
        for name, some in (values or {}).items():
            if some is not None and name in grid:
                raise refuse(f"ranges.{name}", some, "the grid has a list for it; give one of them.")
            if some is not None:
                grid[name] = some
    if config.get("grid") is not None or config.get("ranges") is not None:
        given["grid"] = grid
    return given


def refuse_bad_config(context: dg.AssetExecutionContext) -> None:
    """Refuse the asset's run, see :func:`refuse_bad_run`."""
    refuse_bad_run(context.run, context.partition_key)


def refuse_bad_run(run: dg.DagsterRun, symbol: str) -> None:
    """Refuse a run if any of its steps has a bad symbol or parameter, whichever step is asked first.

    Dagster checks names and types when a run is launched, but bounds only when a step reads its config. Without this,
    ``n_estimators: 0`` would show only after prices and training set had been made.

    A backfill gives every symbol the same config, so a path in it needs ``{symbol}``.

    Raises
    ------
    dagster.Failure
        With the parameter's name, its value and the cure. Not retried, since nothing would change.
    """
    ops: Any = run.run_config.get("ops") or {}
    given = {step: op.get("config") or {} for step, op in ops.items()}
    try:
        pipelines.check_symbol(symbol)
        for step in pipelines.STEPS.values():
            if step.name in given:
                config = given[step.name]
                recipe = given.get(pipelines.TRAINING_SET.name, {}).get("recipe", pipelines.RECIPES[0])
                grids.check_step(
                    step, search_parameters(config) if step.parameters is pipelines.SEARCH else config, recipe
                )
        path = given.get(pipelines.PRICES.name, {}).get("path")
        if path is not None and "dagster/backfill" in run.tags and "{symbol}" not in path:
            cure = "a backfill would give every symbol the same rows; write {symbol} where the symbol stands."
            raise refuse("path", path, cure)
    except ParameterError as error:
        raise dg.Failure(str(error), metadata=_config_without(error, given), allow_retries=False) from error


def _config_without(error: ParameterError, given: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """Return the run's config without the parameter that was refused, for the launchpad: its default then holds."""
    name = str(error).partition("=")[0]
    if not any(name in config for config in given.values()):
        return {}
    kept = {step: {key: value for key, value in config.items() if key != name} for step, config in given.items()}
    ops = {"ops": {step: {"config": config} for step, config in kept.items() if config}}
    # On one line: of a failure's metadata Dagster's page shows nothing longer without a click.
    text = yaml.safe_dump(ops if ops["ops"] else {}, sort_keys=False, default_flow_style=True, width=10_000)
    return {f"config_without_{name}": dg.MetadataValue.text(text.strip())}
