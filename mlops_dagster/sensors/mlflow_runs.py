"""The sensor that ends MLflow runs which their own process couldn't end."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.stack.open_runs import Status

_ENDED: Mapping[dg.DagsterRunStatus, Status] = {
    dg.DagsterRunStatus.SUCCESS: "FINISHED",
    dg.DagsterRunStatus.FAILURE: "FAILED",
    dg.DagsterRunStatus.CANCELED: "KILLED",
}
_AGAIN = timedelta(seconds=30)  # an end may be written later than the time that it bears


def mlflow_runs(models: Sequence[OfModel], name: str = "mlflow_runs") -> dg.SensorDefinition:
    """Make the sensor of some models, which looks at their own experiments only.

    It reads which runs of Dagster have ended, instead of being told by a sensor for each status: runs that were started
    from a shell belong to no code location, and three more sensors would be asked every few seconds.
    """

    @dg.sensor(
        name=name,
        description="Sets MLflow runs to FINISHED, FAILED or KILLED when their Dagster run has ended so, and to FAILED "
        "when their process on this machine has died, whoever started them.",
        # The daemon looks every 5 seconds; 5 here would make it every other time.
        minimum_interval_seconds=4,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=set().union(*(model.tool_keys for model in models)),
    )
    def settle(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        trackers = {model: model.tools(context.resources)[1] for model in models}
        # Runs of ours whose process died are FAILED, whatever became of the Dagster run (a step may be tried again).
        said = [f"FAILED now: {run_id}" for run_id in trackers[models[0]].reap()]  # of all models
        now = datetime.now(timezone.utc)
        since = datetime.fromisoformat(context.cursor) - _AGAIN if context.cursor else now
        for run in context.instance.get_runs(dg.RunsFilter(statuses=[*_ENDED], updated_after=since)):
            for model, tracker in trackers.items():
                if model.has(run):
                    status = _ENDED[run.status]
                    said += [f"{status} now: {run_id}" for run_id in tracker.settle(run.run_id, status)]
        return dg.SensorResult(skip_reason=" ".join(said) or "No MLflow run was left open.", cursor=now.isoformat())

    return settle
