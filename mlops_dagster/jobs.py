"""The pipelines as Dagster jobs: a name, a selection of assets, and the config that the launchpad opens with."""

from typing import Any

import dagster as dg

from mlops_dagster import pipelines

HOW_TO_WRITE_A_GRID = (
    "For a grid of your own, replace `preset: small` by `grid: {max_depth: [80, 90], max_features: [0.15, 0.3]}`, "
    "by `ranges: {n_estimators: {start: 100, stop: 500, step: 100}}`, or by both."
)

HOW_TO_CHANGE_THE_COMPUTE = (
    "For other machines in one run, add `resources: {compute: {config: {...}}}`: the launchpad lists and explains what "
    "this deployment's compute takes, for example `slots` here or `num_workers` on Databricks."
)


def _job(pipeline: pipelines.Pipeline) -> Any:
    search = any(step.parameters is pipelines.SEARCH for step in pipeline.steps)
    opens_with = {step.name: {"config": config} for step in pipeline.steps if (config := _opens_with(step))}
    return dg.define_asset_job(
        pipeline.name,
        selection=[step.name for step in pipeline.steps],
        description=" ".join(
            [pipeline.description, *([HOW_TO_WRITE_A_GRID] if search else []), HOW_TO_CHANGE_THE_COMPUTE]
        ),
        config={"ops": opens_with},
    )


def _opens_with(step: pipelines.Step) -> dict[str, Any]:
    if step is pipelines.TRAINED_MODEL:  # the two that people change, instead of an empty page
        forest = pipelines.RECIPE_DEFAULTS[pipelines.TRAINING_SET.defaults["recipe"]]
        return {one.name: forest[one.name] for one in pipelines.FOREST[:2]}
    return {} if step is pipelines.CHAMPION_MODEL else dict(step.defaults)


JOBS = [_job(pipeline) for pipeline in pipelines.PIPELINES]


def without_prices(pipeline: pipelines.Pipeline) -> list[dg.AssetKey]:
    """Return a pipeline's assets but the prices, for a run on those that are there, wherever they came from."""
    return [dg.AssetKey(step.name) for step in pipeline.steps if step is not pipelines.PRICES]
