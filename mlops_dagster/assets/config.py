"""The run config of the assets: the parameters of `pipelines.py` as the launchpad shows them.

What belongs here: names and types, which Dagster checks before a run starts. What doesn't: bounds, defaults and
descriptions, which `pipelines.py` says once; `refuse_bad_config` applies the bounds to the whole run before its
first step works.
"""

from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mlops_dagster import pipelines


def parameter(name: str, default: Any = None) -> Any:
    """Describe a config field with the words and bounds of its parameter."""
    return Field(default=default, description=pipelines.explain(name))


class PricesConfig(dg.Config):
    """Where this run's prices come from, if not from where the deployment says."""

    source: str | None = parameter("source")
    path: str | None = parameter("path")
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


def refuse_bad_config(context: dg.AssetExecutionContext) -> None:
    """Refuse the run if any of its steps has a bad symbol or parameter, whichever step is asked first.

    Dagster checks names and types when a run is launched, but bounds only when a step reads its config. Without this,
    ``n_estimators: 0`` would show only after prices and training set had been made.

    Raises
    ------
    dagster.Failure
        With the parameter's name, its value and the cure. Not retried, since nothing would change.
    """
    try:
        pipelines.check_symbol(context.partition_key)
        ops: Any = context.run.run_config.get("ops") or {}
        for step in pipelines.BUILD_MODEL.steps:
            given = ops.get(step.name, {}).get("config", {})
            pipelines.check_parameters(step.parameters, given)
    except pipelines.ParameterError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
