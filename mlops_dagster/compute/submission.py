"""One Databricks run for one step: what is asked for, submitted once, with permissions, and never left behind."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from mlops_dagster.compute.failures import URL, to_failure
from mlops_dagster.compute.inputs import table_of
from mlops_dagster.errors import MlopsError
from mlops_dagster.spec import steps as names
from mlops_dagster.stack.databricks import runs
from mlops_dagster.stack.databricks.api import libraries as libraries
from mlops_dagster.stack.databricks.api import new_cluster
from mlops_dagster.stack.databricks.project_files import check_travels
from mlops_dagster.stack.databricks.retry import Log as Log
from mlops_dagster.stack.databricks.travel import left_behind

if TYPE_CHECKING:
    from dagster._core.execution.context.system import StepExecutionContext
    from databricks.sdk import WorkspaceClient

    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.databricks.run_states import RunInfo
    from mlops_dagster.stack.databricks.settings import Accessor, DatabricksSettings
    from mlops_dagster.stack.deployment import Deployment

GRACE_SECONDS = 60  # for Databricks, to end by itself what took longer than its timeout


def refuse_what_stays(context: StepExecutionContext, deployment: Deployment, model: Declaration) -> None:
    """Refuse a run of a model that a cluster wouldn't find, or whose data it couldn't read.

    Raises
    ------
    dagster.Failure
        Before anything is sent; the message names what stays here, and the cure.
    """
    steps = {str(table_of(key, model)) for key in context.job_def.asset_layer.executable_asset_keys}
    config: Any = context.dagster_run.run_config.get("ops") or {}
    path = ((config.get(f"{model.data_owner}__{names.DATA}") or {}).get("config") or {}).get("path")
    try:
        check_travels(model, deployment, steps, path)
    except MlopsError as error:
        raise to_failure(error) from error


@dataclass(frozen=True)
class StepRequest:
    """The step that a Databricks run is for.

    Parameters
    ----------
    step : str
        The key of Dagster's step, which is unique within its run.
    symbol : str
        The partition.
    attempt : int
        0 at first, more if Dagster repeats the step within the run.
    """

    step: str
    symbol: str
    run: dg.DagsterRun
    attempt: int
    # Not only run, step and attempt: a run whose worker died may be resumed with the same three, and Databricks would
    # answer with the run of the dead worker.
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def root(self) -> str:
        """The id of the first Dagster run of which this one is a re-execution, or its own."""
        return self.run.root_run_id or self.run.run_id

    @property
    def name(self) -> str:
        """The name of its Databricks run: that of every attempt, so that each finds what the last one left."""
        return runs.run_name(self.step, self.symbol, self.root)

    @property
    def token(self) -> str:
        """What makes Databricks start one run, even if it is asked twice because an answer was lost."""
        return runs.idempotency_token(self.run.run_id, self.step, self.attempt, self.nonce)


@dataclass
class Submitted:
    """A Databricks run that is alive until the step is over."""

    run_id: int
    url: str
    client: WorkspaceClient
    settings: DatabricksSettings
    log: Log

    def wait(self, on_poll: Callable[[RunInfo], object] = lambda seen: None) -> None:
        """Wait until it has succeeded.

        Raises
        ------
        DatabricksRunError
            If it ends in any other way, or takes too long.
        """
        cluster = list(_access(self.settings.permissions.cluster))

        def look(seen: RunInfo) -> None:
            # A new cluster has no id before Databricks has begun to make it.
            if cluster and (cluster_id := _cluster_of(seen)):
                _grant(self.client, "clusters", cluster_id, cluster, seen.url)
                cluster.clear()
            on_poll(seen)

        runs.wait_for(
            self.client,
            self.run_id,
            poll=self.settings.poll_seconds,
            deadline=self.settings.timeout_seconds + GRACE_SECONDS,
            log=self.log,
            on_poll=look,
        )


def warn_of_what_stays(deployment: Deployment, log: Log) -> None:
    """Say which settings don't travel because they hold a secret, for those whose step will miss them."""
    if names := left_behind(deployment):
        log(
            f"not sent to Databricks, as they hold secrets: {', '.join(names)}. If the step needs them there, let "
            "databricks.secrets name secrets of the workspace for them."
        )


@contextmanager
def submitted(
    client: WorkspaceClient,
    settings: DatabricksSettings,
    request: StepRequest,
    task: Mapping[str, Any],
    *,
    log: Log,
    **more: Any,
) -> Iterator[Submitted]:
    """Submit a step, and end its run for certain whatever happens inside.

    What an earlier attempt left has to be gone by now, see :func:`mlops_dagster.stack.databricks.runs.end_leftovers`.

    Parameters
    ----------
    task : mapping
        A SubmitTask of the Jobs API without its key and its timeout.
    **more
        What else `client.jobs.submit` takes.
    """
    from databricks.sdk.service.jobs import SubmitTask

    one = SubmitTask.from_dict({**task, "task_key": request.step, "timeout_seconds": settings.timeout_seconds})
    try:
        run_id = runs.submit(
            client,
            log,
            run_name=request.name,
            idempotency_token=request.token,
            tasks=[one],
            timeout_seconds=settings.timeout_seconds,
            **more,
        )
        with runs.ending(client, run_id, log):
            seen = client.jobs.get_run(run_id)
            if access := list(_access(settings.permissions.job)):
                _grant(client, "jobs", str(seen.job_id), access, str(seen.run_page_url))
            yield Submitted(run_id, str(seen.run_page_url), client, settings, log)
    except (DagsterExecutionInterruptedError, KeyboardInterrupt):
        # The interrupt may have come between the two lines above, or during the end of the run.
        runs.end_leftovers(client, request.name, log)
        raise


def _access(levels: Mapping[Any, list[Accessor]]) -> Iterator[dict[str, str]]:
    for level, accessors in levels.items():
        for accessor in accessors:
            yield {"permission_level": level, **accessor.model_dump(exclude_none=True)}


def _grant(client: WorkspaceClient, kind: str, name: str, access: list[dict[str, str]], url: str) -> None:
    from databricks.sdk.errors.base import DatabricksError
    from databricks.sdk.service.iam import AccessControlRequest

    try:
        client.permissions.update(
            kind, name, access_control_list=[AccessControlRequest.from_dict(one) for one in access]
        )
    except DatabricksError as error:
        raise dg.Failure(
            f"databricks.permissions can't be granted on {kind}/{name}: {error}. The run is cancelled: those who are "
            "meant to see it couldn't.",
            metadata={URL: dg.MetadataValue.url(url)},
            allow_retries=False,
        ) from error


def _cluster_of(seen: RunInfo) -> str | None:
    for task in seen.tasks:
        if cluster_id := (task.get("cluster_instance") or {}).get("cluster_id"):
            return str(cluster_id)
    return None


def machines(settings: DatabricksSettings) -> dict[str, Any]:
    """Return the part of a SubmitTask that says where it runs on classic compute."""
    if settings.cluster.new is None:
        return {"existing_cluster_id": settings.cluster.existing}
    return {"new_cluster": new_cluster(settings.cluster.new)}
