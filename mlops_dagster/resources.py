"""What the assets need of a deployment, as Dagster resources: settings, store, tracker, compute. Translation only.

What belongs here: the line that builds each tool. What doesn't: how a tool works (`stack/`), and which deployment is
in force (`definitions.py`).

They have no config of their own. Dagster copies a resource's config into the launchpad and from there into every run,
where it would outlive the deployment that it came from, credentials included.
"""

from typing import Any

import dagster as dg

from mlops_dagster.compute.here import Here
from mlops_dagster.dagster_mlflow_tracker import DagsterMlflowTracker
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import MlflowTracker


def resources_of(deployment: Deployment) -> dict[str, Any]:
    """Return the resources of a deployment; nothing is connected yet."""
    store = Store(deployment.store.root, deployment.store.storage_options)
    return {
        "deployment": deployment,
        "store": store,
        "tracker": _tracker(deployment),
        "compute": _compute(deployment, store),
    }


def _tracker(deployment: Deployment) -> MlflowTracker | dg.ResourceDefinition:
    settings = deployment.tracker_settings()
    if deployment.tracking.client == "mlops":
        return MlflowTracker(**settings)
    # dagster-mlflow takes the Dagster run from the context of its resource.
    return dg.ResourceDefinition(
        lambda context: DagsterMlflowTracker(context=context, **settings),
        description="dagster-mlflow's mlflow_tracking behind our tracker's interface",
    )


def _compute(deployment: Deployment, store: Store) -> dg.ResourceDefinition:
    return dg.ResourceDefinition(
        lambda context: Here(deployment, store, context.resources.tracker),
        required_resource_keys={"tracker"},
        description="Runs the steps in this process",
    )
