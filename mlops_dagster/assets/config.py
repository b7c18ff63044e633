"""The run config of the assets: the parameters of `pipelines.py` as the launchpad shows them."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
import yaml
from pydantic import Field

from mlops_dagster import grids, pipelines
from mlops_dagster.errors import ParameterError, refuse


def parameter(name: str, default: Any = None) -> Any:
    """Describe a config field with the words and bounds of its parameter."""
    return Field(default=default, description=pipelines.explain(name))


class PricesConfig(dg.Config):
    """Where this run's prices come from, if not from where the deployment says."""

    source: str | None = parameter("source")
    path: str | None = parameter("path")
    sha256: str | None = parameter("sha256")
    start: str | None = parameter("start")
    end: str | None = parameter("end")


class TrainingSetConfig(dg.Config):
    """How features, target and split are made."""

    recipe: Literal["honest", "article"] = parameter("recipe", default="honest")
    horizon: int | None = parameter("horizon")
    test_size: float | None = parameter("test_size")


class ForestConfig(dg.Config):
    """The forest's hyper-parameters. Each that isn't given is the recipe's default."""

    max_depth: int | None = parameter("max_depth")
    n_estimators: int | None = parameter("n_estimators")
    min_samples_leaf: int | None = parameter("min_samples_leaf")
    min_samples_split: int | None = parameter("min_samples_split")
    max_features: float | None = parameter("max_features")
    bootstrap: bool | None = parameter("bootstrap")
    random_state: int | None = parameter("random_state")


class GateConfig(dg.Config):
    """What a new model has to fulfil to become the champion."""

    margin: float = parameter("margin", default=pipelines.GATE_DEFAULTS["margin"])
    beat_persistence: bool = parameter("beat_persistence", default=pipelines.GATE_DEFAULTS["beat_persistence"])
    allow_leaks: bool = parameter("allow_leaks", default=pipelines.GATE_DEFAULTS["allow_leaks"])


class ForecastConfig(dg.Config):
    """How sure the interval is, and which missed days are forecast late."""

    interval: float = parameter("interval", default=pipelines.FORECASTING_DEFAULTS["interval"])
    catch_up: int = parameter("catch_up", default=pipelines.FORECASTING_DEFAULTS["catch_up"])


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


class GridConfig(dg.Config):
    """Lists of values to try, for example ``max_depth: [80, 90, 100]``. What isn't listed stays the recipe's."""

    max_depth: list[int] | None = parameter("max_depth")
    n_estimators: list[int] | None = parameter("n_estimators")
    min_samples_leaf: list[int] | None = parameter("min_samples_leaf")
    min_samples_split: list[int] | None = parameter("min_samples_split")
    max_features: list[float] | None = parameter("max_features")
    bootstrap: list[bool] | None = parameter("bootstrap")
    random_state: list[int] | None = parameter("random_state")


class RangesConfig(dg.Config):
    """Ranges of values to try, for example ``n_estimators: {start: 100, stop: 500, step: 100}``."""

    max_depth: IntegerRange | None = parameter("max_depth")
    n_estimators: IntegerRange | None = parameter("n_estimators")
    min_samples_leaf: IntegerRange | None = parameter("min_samples_leaf")
    min_samples_split: IntegerRange | None = parameter("min_samples_split")
    max_features: NumberRange | None = parameter("max_features")
    random_state: IntegerRange | None = parameter("random_state")


class SearchConfig(dg.Config):
    """What is searched, and how candidates are scored. Give a preset, or a grid of lists and ranges."""

    preset: Literal["small", "article"] = parameter("preset", default=pipelines.SEARCH_DEFAULTS["preset"])
    grid: GridConfig | None = Field(
        default=None,
        description="A grid of your own, in place of a preset: lists of values, as in "
        "{max_depth: [80, 90], n_estimators: [100, 200]}. Every combination is a candidate.",
    )
    ranges: RangesConfig | None = Field(
        default=None,
        description="Ranges in place of lists, alone or beside `grid`, as in "
        "{n_estimators: {start: 100, stop: 500, step: 100}}. They include their stop.",
    )
    cv: Literal["by recipe", "chronological", "shuffled"] = parameter("cv", default="by recipe")
    folds: int | None = parameter("folds")
    gap: int | None = parameter("gap")
    scoring: Literal[
        "neg_root_mean_squared_error",
        "neg_mean_squared_error",
        "neg_mean_absolute_error",
        "neg_median_absolute_error",
        "neg_max_error",
        "r2",
        "explained_variance",
    ] = parameter("scoring", default=pipelines.SEARCH_DEFAULTS["scoring"])
    random_state: int | None = parameter("random_state")
    candidates: Literal["table", "children"] = parameter("candidates", default=pipelines.SEARCH_DEFAULTS["candidates"])


def search_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a search as `pipelines.SEARCH` has them: lists and ranges are one grid.

    Parameters
    ----------
    config : mapping
        As users wrote it, or as :class:`SearchConfig` has it, defaults filled in.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If a parameter has a list and a range.
    """
    given = {name: value for name, value in config.items() if name not in ("grid", "ranges") and value != "by recipe"}
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
                recipe = given.get(pipelines.TRAINING_SET.name, {}).get("recipe", "honest")
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
