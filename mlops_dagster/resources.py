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
from mlops_dagster.compute.refusing_io_manager import RefusingIOManager
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


def resources_of(deployment: Deployment, refuse_bad_run: RefuseBadRun = lambda run, symbol: None) -> dict[str, Any]:
    """Return the resources of a deployment; nothing is connected yet.

    Parameters
    ----------
    refuse_bad_run : callable, optional
        Raises if a run's config can't be. A compute that never calls an asset's own body here asks it before any work.
    """
    store = store_of(deployment)
    resources = {
        "deployment": deployment,
        "store": store,
        "tracker": _tracker(deployment),
        "compute": _compute(deployment, store, refuse_bad_run),
    }
    if deployment.compute != "here":
        resources["io_manager"] = RefusingIOManager()
    return resources


def compute_of(deployment: Deployment, model: Declaration) -> dg.ResourceDefinition:
    """Return what runs the steps of a declared model, with its own tables and experiment; nothing is connected yet."""
    store = store_of(deployment, model)

    def make(context: dg.InitResourceContext) -> LocalCompute:
        tracker = _tracker(deployment, model)
        made = tracker(context) if isinstance(tracker, dg.ResourceDefinition) else tracker
        return LocalCompute(deployment, store, made, model)

    return dg.ResourceDefinition(make, description=f"Runs the steps of {model.name}; its tables are in {store.root}")


def tables_of(deployment: Deployment, model: Declaration) -> dg.IOManagerDefinition:
    """Return what gives a declared model's tables to other assets; nothing is connected yet."""
    return dg.IOManagerDefinition.hardcoded_io_manager(
        TableIOManager(store_of(deployment, model)), description=f"Reads the tables of {model.name}"
    )


def _tracker(deployment: Deployment, model: Declaration | None = None) -> MlflowTracker | dg.ResourceDefinition:
    settings = deployment.tracker_settings(model)
    if deployment.tracking.client == "mlops":
        return MlflowTracker(**settings)
    # dagster-mlflow takes the Dagster run from the context of its resource.
    return dg.ResourceDefinition(
        lambda context: DagsterMlflowTracker(context=context, **settings),
        description="dagster-mlflow's mlflow_tracking behind our tracker's interface",
    )


def _compute(deployment: Deployment, store: Store, refuse_bad_run: RefuseBadRun) -> dg.ResourceDefinition:
    def make(context: dg.InitResourceContext) -> Any:
        overridden = changed(deployment, context.resource_config or {})
        if deployment.compute == "here" or deployment.inside:
            return LocalCompute(overridden, store, context.resources.tracker)
        # dagster_databricks takes a second to import: only a run on Databricks pays for it.
        if deployment.compute == "databricks_step":
            from mlops_dagster.compute.step_launcher import StepLauncher

            return StepLauncher(overridden, refuse_bad_run)
        from mlops_dagster.compute.pipes import Pipes

        return Pipes(overridden)

    return dg.ResourceDefinition(
        make,
        required_resource_keys={"tracker"},
        config_schema=fields_of(deployment),
        description=DESCRIPTIONS[deployment.compute],
    )
