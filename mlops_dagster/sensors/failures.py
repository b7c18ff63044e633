"""The sensor that tells people when a run has failed."""

from collections.abc import Sequence
from contextlib import suppress

from dagster import (
    DagsterRun,
    DefaultSensorStatus,
    RunFailureSensorContext,
    SensorDefinition,
    SkipReason,
    run_failure_sensor,
)

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.notify import Failure, tell
from mlops_dagster.stack.tracking import MlflowTracker

HOW = "MLOPS_NOTIFY__WEBHOOK_URL, MLOPS_NOTIFY__SLACK_WEBHOOK_URL or notify.email (see docs/automation.md)"


class NotTold(MlopsError):  # noqa: N818 it reads better where it is shown
    """Somebody couldn't be told that a run has failed; the message says who and why."""


def run_failed(deployment: Deployment, models: Sequence[OfModel] = (), only: OfModel | None = None) -> SensorDefinition:
    """Make the sensor; it is on where somebody is to be told.

    Parameters
    ----------
    models : sequence of OfModel
        The models, so that a run's page in MLflow is looked for where its model has its runs.
    only : OfModel, optional
        Whose runs alone are told of. Not given: all there are.
    """
    channels = deployment.notify.channels
    told = f"Tells {', '.join(channels)}" if channels else f"Tells nobody yet: set {HOW}. It would tell"

    @run_failure_sensor(
        name=only.named("run_failed") if only else "run_failed",
        description=f"{told} of every run{f' of {only.name}' if only else ''} that fails: job, partition, step, "
        "error, links.",
        minimum_interval_seconds=4,
        default_status=DefaultSensorStatus.RUNNING if channels else DefaultSensorStatus.STOPPED,
        # Runs that were started from a shell belong to no code location.
        monitor_all_code_locations=True,
    )
    def sensor(context: RunFailureSensorContext) -> SkipReason | None:
        if only is not None and not only.has(context.dagster_run):
            return SkipReason(f"Run {context.dagster_run.run_id} isn't one of {only.name}.")
        if not deployment.notify.channels:
            return SkipReason(f"Nobody is told of failed runs: set {HOW}.")
        if context.dagster_run.tags.get("dagster/will_retry") == "true":
            return SkipReason(f"Run {context.dagster_run.run_id} is tried again first.")
        problems = tell(_failure(context, deployment, models if only is None else [only]), deployment.notify)
        told = [name for name in deployment.notify.channels if name not in problems]
        context.log.info(f"Run {context.dagster_run.run_id} has failed; told: {', '.join(told) or 'nobody'}.")
        if problems:
            raise NotTold(" ".join(f"notify.{name} wasn't told: {problem}." for name, problem in problems.items()))
        return None

    return sensor


def _failure(context: RunFailureSensorContext, deployment: Deployment, models: Sequence[OfModel]) -> Failure:
    run = context.dagster_run
    step, error = None, context.failure_event.message or "It gave no reason."
    # The first step that failed is why the others did.
    for event in context.get_step_failure_events()[:1]:
        step, data = event.step_key, event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            error = data.user_failure_data.description
        elif data.error:
            error = (data.error.cause or data.error).message
    return Failure(
        job=run.job_name,
        run_id=run.run_id,
        symbol=_partitions_of(run),
        step=step,
        error=error,
        dagster_url=deployment.dagster_run_url(run.run_id),
        mlflow_url=_mlflow_url(run, deployment, next((one for one in models if one.has(run)), None)),
    )


def _partitions_of(run: DagsterRun) -> str | None:
    ends = [run.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end")]
    return run.tags.get("dagster/partition") or " to ".join(one for one in ends if one) or None


def _mlflow_url(run: DagsterRun, deployment: Deployment, model: OfModel | None) -> str | None:
    if model is None:
        return None
    # A failure is told with or without it.
    with suppress(MlopsError):
        tracker = MlflowTracker(**deployment.tracker_settings(model.declaration))
        client, experiment_id = tracker.connect()
        found = client.search_runs([experiment_id], f"tags.{tracker.run_id_tag} = '{run.run_id}'", max_results=1)
        if found:
            return tracker.url(experiment_id, found[0].info.run_id)
    return None
