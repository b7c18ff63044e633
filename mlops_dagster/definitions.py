"""The composition root: a deployment becomes resources, and resources meet assets. The only place that wires."""

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.declared import definitions_of_models, refuse_unknown_names
from mlops_dagster.process_settings import collect_rarely, wait_quietly
from mlops_dagster.run_workers import in_process_executor
from mlops_dagster.sensors.failures import run_failed
from mlops_dagster.sensors.mlflow_runs import mlflow_runs
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment


def definitions_of(deployment: Deployment) -> dg.Definitions:
    """Wire everything for one deployment; nothing is connected yet."""
    declared = [find_model(name) for name in model_names()]
    refuse_unknown_names(declared, deployment)
    models = [OfModel(one) for one in declared]
    return dg.Definitions.merge(
        dg.Definitions(
            sensors=[run_failed(deployment, models), *([mlflow_runs(models)] if models else [])],
            # What is materialised without a job runs as the jobs do.
            executor=in_process_executor,
        ),
        definitions_of_models(declared, deployment, alone=False),
    )


collect_rarely()
wait_quietly()
defs = definitions_of(load_deployment())
