"""What the assets need of a deployment, as Dagster resources: its settings, its store, its tracker. Translation only.

What belongs here: the line that builds each tool. What doesn't: how a tool works (`stack/`), and which deployment is
in force (`definitions.py`).

They have no config of their own. Dagster copies a resource's config into the launchpad and from there into every run,
where it would outlive the deployment that it came from, credentials included.
"""

from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mlops_dagster.dagster_mlflow_tracker import DagsterMlflowTracker
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import MlflowTracker


def resources_of(deployment: Deployment) -> dict[str, Any]:
    """Return the resources of a deployment; nothing is connected yet."""
    return {
        "deployment": deployment,
        "store": Store(deployment.store.root, deployment.store.storage_options),
        "tracker": _tracker(deployment),
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


class TrackerResource(dg.ConfigurableResource[MlflowTracker]):
    """Where models and runs are tracked. The keys up to `extra_tags` are dagster-mlflow's too."""

    client: Literal["mlops", "dagster-mlflow"] = Field(
        default="mlops", description="Our own tracker, or dagster-mlflow's `mlflow_tracking`"
    )
    experiment_name: str = Field(description="Created if it is missing")
    mlflow_tracking_uri: str = Field(description="An MLflow server's URL or a database URI")
    parent_run_id: str | None = Field(default=None, description="The MLflow run to nest runs below")
    env: dict[str, str] = Field(default={}, description="Environment variables for MLflow")
    env_to_tag: list[str] = Field(default=[], description="Environment variables that become tags of the run")
    extra_tags: dict[str, str] = Field(default={}, description="Tags of every run")
    artifact_location: str | None = Field(default=None, description="Where a new experiment keeps its artifacts")
    ui_url: str | None = Field(default=None, description="Where people open MLflow, for links")
    state_dir: str = Field(description="A folder on this machine for the notes of open runs")

    def create_resource(self, context: dg.InitResourceContext) -> MlflowTracker:
        """Return the tracker; nothing is connected yet."""
        settings: dict[str, Any] = {
            "experiment_name": self.experiment_name,
            "tracking_uri": self.mlflow_tracking_uri,
            "parent_run_id": self.parent_run_id,
            "env": self.env,
            "env_to_tag": self.env_to_tag,
            "extra_tags": self.extra_tags,
            "artifact_location": self.artifact_location,
            "ui_url": self.ui_url,
            "state_dir": Path(self.state_dir),
        }
        if self.client == "dagster-mlflow":
            return DagsterMlflowTracker(context=context, **settings)
        return MlflowTracker(**settings)
