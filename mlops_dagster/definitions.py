"""The composition root: a deployment becomes resources, and resources meet assets. The only place that wires."""

import dagster as dg

from mlops_dagster.assets.of_model import PRICES, OfModel
from mlops_dagster.assets.step_assets import ASSETS
from mlops_dagster.catalog import with_code_and_tags
from mlops_dagster.checks import CHECKS
from mlops_dagster.declared import definitions_of_models, refuse_unknown_names
from mlops_dagster.jobs import JOBS
from mlops_dagster.price_schedules import schedules_of
from mlops_dagster.process_settings import collect_rarely, wait_quietly
from mlops_dagster.resources import resources_of
from mlops_dagster.run_workers import in_process_executor
from mlops_dagster.sensors.conditions import keep_current
from mlops_dagster.sensors.failures import run_failed
from mlops_dagster.sensors.mlflow_runs import mlflow_runs
from mlops_dagster.sensors.poor_predictions import poor_predictions
from mlops_dagster.sensors.price_inbox import price_inbox
from mlops_dagster.sensors.price_searches import best_parameters_to_model
from mlops_dagster.sensors.symbols import deployment_symbols
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment


def definitions_of(deployment: Deployment) -> dg.Definitions:
    """Wire everything for one deployment; nothing is connected yet."""
    models = [find_model(name) for name in model_names()]
    refuse_unknown_names(models, deployment)
    return dg.Definitions.merge(
        _prices(deployment),
        dg.Definitions(sensors=[run_failed(deployment, [OfModel(one) for one in models])]),
        definitions_of_models(models, deployment, tell=False),
    )


def _prices(deployment: Deployment) -> dg.Definitions:
    return dg.Definitions(
        assets=with_code_and_tags(ASSETS),
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=schedules_of(deployment),
        sensors=[
            price_inbox,
            keep_current(PRICES),
            poor_predictions(PRICES, deployment),
            best_parameters_to_model,
            deployment_symbols,
            mlflow_runs(PRICES),
        ],
        resources=resources_of(deployment, PRICES.refuse_bad_run),
        # What is materialised without a job runs as the jobs do.
        executor=in_process_executor,
    )


collect_rarely()
wait_quietly()
defs = definitions_of(load_deployment())
