"""The pipelines as Dagster jobs: a name, a selection of assets, and the config that the launchpad opens with."""

from typing import Any

import dagster as dg

from mlops_dagster.assets.of_model import OfModel, searches
from mlops_dagster.run_workers import in_process_executor
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.parameters import Pipeline, Step

HOW_TO_CHANGE_THE_COMPUTE = (
    "For other machines in one run, add `resources: {{{}: {{config: {{...}}}}}}`: the launchpad explains what "
    "this deployment's compute takes, for example `slots` here or `num_workers` on Databricks."
)


def jobs_of(model: OfModel) -> list[Any]:
    """Make the jobs of a model, one for each of its pipelines.

    Each has its executor with it, whatever that of its code location is. A run is one partition's chain of steps with
    nothing to do side by side: one process each is five times quicker than one per step. Partitions still run beside
    each other, since each is a run of its own.
    """
    return [_job(pipeline, model) for pipeline in model.pipelines]


def _job(pipeline: Pipeline, model: OfModel) -> Any:
    said = [pipeline.description]
    if any(searches(step) for step in pipeline.steps):
        lists, ranges = model.grid_examples
        also = f", by `ranges: {ranges}`, or by both" if ranges else ""
        said.append(f"For a grid of your own, replace `preset` by `grid: {lists}`{also}.")
    said.append(HOW_TO_CHANGE_THE_COMPUTE.format(model.compute))
    configs = {model.op(step.name): pipeline.chosen(step, _opens_with(step)) for step in pipeline.steps}
    opens_with = {op: {"config": config} for op, config in configs.items() if config}
    return dg.define_asset_job(
        pipeline.name,
        selection=[model.key(step.name) for step in pipeline.steps],
        description=" ".join(said),
        config={"ops": opens_with},
        executor_def=in_process_executor,
    )


def _opens_with(step: Step) -> dict[str, Any]:
    return {} if step.name == names.CHAMPION_MODEL else dict(step.defaults)


def without_data(pipeline: Pipeline, model: OfModel) -> list[dg.AssetKey]:
    """Return a pipeline's assets but the first, for a run on the rows that are there, wherever they came from."""
    return [model.key(step.name) for step in pipeline.steps[1:]]
