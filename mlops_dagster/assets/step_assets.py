"""The assets, one per step, made from its declaration. Each runs its step on the deployment's compute."""

from typing import Any

import dagster as dg

from mlops_dagster import pipelines, steps
from mlops_dagster.assets.conditions import champion_has_changed, forecasts_or_prices_have_changed
from mlops_dagster.assets.config import config_of, refuse_bad_config, search_parameters
from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.compute.local import Compute

OWNERS = ["team:mlops"]
# One for all: of several, Dagster's graphs show closed boxes until somebody opens each.
GROUP = "stock_prices"


def asset_of(
    step: pipelines.Step,
    *,
    kinds: set[str],
    deps: tuple[dg.AssetsDefinition, ...] = (),
    automation_condition: Any = None,
) -> dg.AssetsDefinition:
    """Make the asset of a step: its config has the step's parameters, its description is the step's."""

    def run_step(
        context: dg.AssetExecutionContext, config: dg.Config, compute: dg.ResourceParam[Compute]
    ) -> dg.MaterializeResult[None]:
        refuse_bad_config(context)
        given = config.model_dump()
        if step.parameters is pipelines.SEARCH:
            given = search_parameters(given)
            if "grid" in given:
                del given["preset"]  # Dagster has filled it in; refuse_bad_config has seen what was really given
        return compute.run(context, step.name, given)

    run_step.__annotations__["config"] = config_of(step)
    return dg.asset(
        name=step.name,
        deps=list(deps),
        partitions_def=SYMBOLS,
        group_name=GROUP,
        kinds=kinds,
        owners=OWNERS,
        code_version=steps.step_code_version(step.name),
        automation_condition=automation_condition,
        description=step.description,
    )(run_step)


prices = asset_of(pipelines.PRICES, kinds={"deltalake", "pandas"})
training_set = asset_of(pipelines.TRAINING_SET, kinds={"deltalake", "pandas"}, deps=(prices,))
trained_model = asset_of(pipelines.TRAINED_MODEL, kinds={"scikitlearn", "mlflow"}, deps=(training_set,))
champion_model = asset_of(pipelines.CHAMPION_MODEL, kinds={"scikitlearn", "mlflow"}, deps=(trained_model,))
grid_search_results = asset_of(
    pipelines.GRID_SEARCH_RESULTS, kinds={"scikitlearn", "deltalake", "mlflow"}, deps=(training_set,)
)
spark_grid_search_results = asset_of(
    pipelines.SPARK_GRID_SEARCH_RESULTS, kinds={"spark", "deltalake", "mlflow"}, deps=(training_set,)
)
price_forecast = asset_of(
    pipelines.PRICE_FORECAST,
    kinds={"scikitlearn", "deltalake"},
    deps=(prices, champion_model),
    automation_condition=champion_has_changed,
)
forecast_quality = asset_of(
    pipelines.FORECAST_QUALITY,
    kinds={"deltalake", "pandas"},
    deps=(price_forecast, prices),
    automation_condition=forecasts_or_prices_have_changed,
)
ASSETS = [
    prices,
    training_set,
    trained_model,
    champion_model,
    grid_search_results,
    spark_grid_search_results,
    price_forecast,
    forecast_quality,
]
