"""The composition root: a deployment becomes resources, and resources meet assets. The only place that wires."""

import dagster as dg

from mlops_dagster.assets import build_model, search
from mlops_dagster.assets.config import refuse_bad_run
from mlops_dagster.checks import CHECKS
from mlops_dagster.jobs import JOBS
from mlops_dagster.resources import resources_of
from mlops_dagster.sensors import SENSORS, best_parameters_to_model
from mlops_dagster.stack.deployment import Deployment, load_deployment


def definitions_of(deployment: Deployment) -> dg.Definitions:
    """Wire everything for one deployment; nothing is connected yet."""
    return dg.Definitions(
        assets=[
            build_model.prices,
            build_model.training_set,
            build_model.trained_model,
            build_model.champion_model,
            search.grid_search_results,
            search.spark_grid_search_results,
        ],
        asset_checks=CHECKS,
        jobs=JOBS,
        sensors=[*SENSORS, best_parameters_to_model],
        resources=resources_of(deployment, refuse_bad_run),
        # A run is one symbol's chain of steps with nothing to do side by side: one process each is five times quicker
        # than one per step. Symbols still run beside each other, since each is a run of its own.
        executor=dg.in_process_executor,
    )


defs = definitions_of(load_deployment())
