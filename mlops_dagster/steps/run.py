"""Any step by its name, with the tools of a deployment: what a Dagster asset and a Databricks task have in common."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines
from mlops_dagster.errors import refuse
from mlops_dagster.steps.build_model import prices, trained_model, training_set
from mlops_dagster.steps.engines import search_engine, training_engine
from mlops_dagster.steps.forecast import forecast_quality, price_forecast
from mlops_dagster.steps.inputs import Pins
from mlops_dagster.steps.promotion import champion_model
from mlops_dagster.steps.report import StepReport
from mlops_dagster.steps.search import SEARCH_CACHE, grid_search_results, spark_grid_search_results

if TYPE_CHECKING:
    from mlops_dagster.stack.deployment import Deployment
    from mlops_dagster.stack.store import Store
    from mlops_dagster.stack.tracking import Origin, Tracker


def run_step(
    step: str,
    symbol: str,
    given: Mapping[str, object],
    *,
    deployment: Deployment,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
    progress: Any = None,
) -> StepReport:
    """Run a step in this process, its trees on the deployment's Spark if it says so.

    Parameters
    ----------
    step : str
        One of the steps of `pipelines.PIPELINES`, for example ``trained_model``.
    given : mapping
        The step's parameters. None counts as not given.
    deployment, store, tracker
        The settings of the stack, and the tools that were made from them.
    origin : Origin
        Who is calling, for the tags in MLflow.

    Raises
    ------
    ParameterError
        If there is no such step, or a parameter is wrong.
    MlopsError
        If the step fails, as its own function says.
    """
    if step == pipelines.PRICES.name:
        return prices(symbol, deployment.price_parameters(dict(given)), store=store, limits=deployment.limits)
    if step == pipelines.TRAINING_SET.name:
        return training_set(symbol, given, store=store, inputs=inputs)
    tracked: dict[str, Any] = {"store": store, "tracker": tracker, "origin": origin, "inputs": inputs}
    if step == pipelines.TRAINED_MODEL.name:
        with training_engine(deployment) as engine:
            return trained_model(symbol, given, **tracked, engine=engine)
    if step == pipelines.CHAMPION_MODEL.name:
        return champion_model(symbol, given, **tracked)
    if step == pipelines.PRICE_FORECAST.name:
        return price_forecast(symbol, given, **tracked, exchange=deployment.schedules.exchange)
    if step == pipelines.FORECAST_QUALITY.name:
        return forecast_quality(symbol, given, store=store, tracker=tracker, inputs=inputs)
    searches = {
        pipelines.GRID_SEARCH_RESULTS.name: grid_search_results,
        pipelines.SPARK_GRID_SEARCH_RESULTS.name: spark_grid_search_results,
    }
    if step not in searches:
        raise refuse("step", step, f"there is no such step; there are {', '.join(pipelines.STEPS)}.")
    on_spark = step == pipelines.SPARK_GRID_SEARCH_RESULTS.name
    opened: AbstractContextManager[Any] = search_engine(deployment) if on_spark else nullcontext()
    with opened as engine:
        return searches[step](
            symbol, given, **tracked, engine=engine, cache=deployment.state_dir / SEARCH_CACHE, progress=progress
        )
