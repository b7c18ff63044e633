"""The pipelines as Dagster jobs: a name, a selection of assets, and the config that the launchpad opens with."""

from typing import Any

import dagster as dg

from mlops_dagster import pipelines
from mlops_dagster.assets import build_model, forecast, search
from mlops_dagster.assets.config import ForecastConfig, ForestConfig, SearchConfig, TrainingSetConfig

HOW_TO_WRITE_A_GRID = (
    "For a grid of your own, replace `preset: small` by `grid: {max_depth: [80, 90], max_features: [0.15, 0.3]}`, "
    "by `ranges: {n_estimators: {start: 100, stop: 500, step: 100}}`, or by both."
)

HOW_TO_CHANGE_THE_COMPUTE = (
    "For other machines in one run, add `resources: {compute: {config: {...}}}`: the launchpad lists and explains what "
    "this deployment's compute takes, for example `slots` here or `num_workers` on Databricks."
)

build_model_pipeline = dg.define_asset_job(
    pipelines.BUILD_MODEL.name,
    selection=[
        build_model.prices,
        build_model.training_set,
        build_model.trained_model,
        build_model.champion_model,
    ],
    description=f"{pipelines.BUILD_MODEL.description} {HOW_TO_CHANGE_THE_COMPUTE}",
    # The launchpad opens with the two hyper-parameters that people change, instead of an empty page.
    config=dg.RunConfig(
        ops={
            "training_set": TrainingSetConfig(recipe="honest"),
            "trained_model": ForestConfig(
                max_depth=pipelines.RECIPE_DEFAULTS["honest"]["max_depth"],
                n_estimators=pipelines.RECIPE_DEFAULTS["honest"]["n_estimators"],
            ),
        }
    ),
)


def _search_job(pipeline: pipelines.Pipeline, results: dg.AssetsDefinition) -> Any:
    """Make a search's job; the launchpad opens with a preset, and explains how to write a grid in its place."""
    return dg.define_asset_job(
        pipeline.name,
        selection=[build_model.prices, build_model.training_set, results],
        description=f"{pipeline.description} {HOW_TO_WRITE_A_GRID} {HOW_TO_CHANGE_THE_COMPUTE}",
        config=dg.RunConfig(
            ops={
                "training_set": TrainingSetConfig(recipe="honest"),
                pipeline.steps[-1].name: SearchConfig(
                    preset=pipelines.SEARCH_DEFAULTS["preset"], folds=pipelines.SEARCH_DEFAULTS["folds"]
                ),
            }
        ),
    )


search_model_pipeline = _search_job(pipelines.SEARCH_MODEL, search.grid_search_results)
cluster_search_model_pipeline = _search_job(pipelines.CLUSTER_SEARCH_MODEL, search.spark_grid_search_results)

forecast_pipeline = dg.define_asset_job(
    pipelines.FORECAST.name,
    selection=[build_model.prices, forecast.price_forecast, forecast.forecast_quality],
    description=f"{pipelines.FORECAST.description} {HOW_TO_CHANGE_THE_COMPUTE}",
    config=dg.RunConfig(ops={"price_forecast": ForecastConfig()}),
)

JOBS = [build_model_pipeline, search_model_pipeline, cluster_search_model_pipeline, forecast_pipeline]


def without_prices(pipeline: pipelines.Pipeline) -> list[dg.AssetKey]:
    """Return a pipeline's assets but the prices, for a run on those that are there, wherever they came from."""
    return [dg.AssetKey(step.name) for step in pipeline.steps if step is not pipelines.PRICES]
