"""What the assets need of a deployment, as Dagster resources: settings, store, tracker, compute. Translation only.

None has config with a default. Dagster copies a resource's config into the launchpad and from there into every run,
where it would outlive the deployment that it came from, credentials included. What one launch may change of the compute
is optional, and only what the launch gave is in its run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg

from mlops_dagster.compute.local import LocalCompute
from mlops_dagster.compute.overrides import changed, fields_of
from mlops_dagster.compute.table_io_manager import TableIOManager
from mlops_dagster.dagster_mlflow_tracker import DagsterMlflowTracker
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store, store_of
from mlops_dagster.stack.tracking import MlflowTracker

DESCRIPTIONS = {
    "here": "Runs the steps in this process; a search may use the deployment's Spark. All of its config is optional.",
    "databricks_step": "Runs each step on Databricks, by its step launcher. All of its config is optional.",
    "databricks_pipes": "Runs each step on Databricks, by Dagster Pipes. All of its config is optional.",
}
RefuseBadRun = Callable[[dg.DagsterRun, str], None]


def key_of(what: str, name: str) -> str:
    """Return the key of a model's store, tracker, compute or tables: each model has its own of each."""
    # None of them can be that of another model, whatever the two are called.
    return f"mlops_dagster_{name}" if what == "compute" else f"{what}_of_mlops_dagster_{name}"


def resources_of(
    deployment: Deployment, model: Declaration, name: str, refuse_bad_run: RefuseBadRun = lambda run, partition: None
) -> dict[str, Any]:
    """Return the resources of a model with a deployment's tools; nothing is connected yet.

    Parameters
    ----------
    model : Declaration
        For whose steps they are.
    name : str
        What their keys say: the model's name, or that of a table which it shares.
    refuse_bad_run : callable, optional
        Raises if a run's config can't be. A compute that never calls an asset's own body here asks it before any work.
    """
    store = store_of(deployment, model)
    return {
        key_of("store", name): store,
        key_of("tracker", name): _tracker(deployment, model),
        key_of("compute", name): _compute(deployment, store, refuse_bad_run, model, name),
        key_of("tables", name): dg.IOManagerDefinition.hardcoded_io_manager(
            TableIOManager(store), description=f"Gives the tables of {name} to other assets as values"
        ),
    }


def _tracker(deployment: Deployment, model: Declaration) -> MlflowTracker | dg.ResourceDefinition:
    settings = deployment.tracker_settings(model)
    if deployment.tracking.client == "mlops":
        return MlflowTracker(**settings)
    # dagster-mlflow takes the Dagster run from the context of its resource.
    return dg.ResourceDefinition(
        lambda context: DagsterMlflowTracker(context=context, **settings),
        description="dagster-mlflow's mlflow_tracking behind our tracker's interface",
    )


def _compute(
    deployment: Deployment, store: Store, refuse_bad_run: RefuseBadRun, model: Declaration, name: str
) -> dg.ResourceDefinition:
    tracker = key_of("tracker", name)

    def make(context: dg.InitResourceContext) -> Any:
        overridden = changed(deployment, context.resource_config or {}, key_of("compute", name))
        if deployment.compute == "here" or deployment.inside:
            return LocalCompute(overridden, model, store, getattr(context.resources, tracker))
        # dagster_databricks takes a second to import: only a run on Databricks pays for it.
        if deployment.compute == "databricks_step":
            from mlops_dagster.compute.step_launcher import StepLauncher

            return StepLauncher(overridden, model, refuse_bad_run)
        from mlops_dagster.compute.pipes import Pipes

        return Pipes(overridden, model)

    return dg.ResourceDefinition(
        make,
        required_resource_keys={tracker},
        config_schema=fields_of(deployment),
        description=DESCRIPTIONS[deployment.compute],
    )
