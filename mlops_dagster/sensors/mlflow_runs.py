"""Sensors that end MLflow runs which their own process couldn't end."""

from dagster import (
    DagsterRunStatus,
    DefaultSensorStatus,
    ResourceParam,
    RunStatusSensorContext,
    SensorDefinition,
    SkipReason,
    run_status_sensor,
    sensor,
)

from mlops_dagster.stack.open_runs import Status
from mlops_dagster.stack.tracking import MlflowTracker


def _settling_sensor(dagster_status: DagsterRunStatus, mlflow_status: Status) -> SensorDefinition:
    @run_status_sensor(
        run_status=dagster_status,
        name=f"mlflow_{mlflow_status.lower()}",
        description=f"Sets MLflow runs to {mlflow_status} when their Dagster run ended with {dagster_status.value}.",
        # The daemon looks every 5 seconds; 5 here would make it every other time.
        minimum_interval_seconds=4,
        default_status=DefaultSensorStatus.RUNNING,
        # Runs that were started from a shell belong to no code location.
        monitor_all_code_locations=True,
    )
    def settle(context: RunStatusSensorContext, tracker: ResourceParam[MlflowTracker]) -> None:
        # Runs of ours whose process died are FAILED, whatever became of the Dagster run (a step may be tried again).
        tracker.reap()
        for run_id in tracker.settle(context.dagster_run.run_id, mlflow_status):
            context.log.info(f"MLflow run {run_id} is {mlflow_status} now.")

    return settle


mlflow_finished = _settling_sensor(DagsterRunStatus.SUCCESS, "FINISHED")
mlflow_failed = _settling_sensor(DagsterRunStatus.FAILURE, "FAILED")
mlflow_killed = _settling_sensor(DagsterRunStatus.CANCELED, "KILLED")


@sensor(
    description="Sets MLflow runs to FAILED when their process on this machine has died, whoever started them.",
    minimum_interval_seconds=29,
    default_status=DefaultSensorStatus.RUNNING,
)
def mlflow_abandoned(tracker: ResourceParam[MlflowTracker]) -> SkipReason:
    """Reap abandoned runs."""
    ended = tracker.reap()
    return SkipReason(f"FAILED now: {', '.join(ended)}" if ended else "No process died with an open MLflow run.")


MLFLOW_SENSORS = [mlflow_finished, mlflow_failed, mlflow_killed, mlflow_abandoned]
