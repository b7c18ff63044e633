"""Sensors: they end MLflow runs that their own process couldn't end, keep the symbols there, build what was searched.

What belongs here: reacting to what happens in Dagster. What doesn't: deciding what an MLflow run's right status is,
which the tracker does (`stack/open_runs.py`).
"""

import json
from typing import Any

from dagster import (
    AssetMaterialization,
    AssetRecordsFilter,
    DagsterRunStatus,
    DefaultSensorStatus,
    ResourceParam,
    RunRequest,
    RunStatusSensorContext,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    run_status_sensor,
    sensor,
)

from mlops_dagster import pipelines
from mlops_dagster.assets.partitions import SYMBOLS, missing_symbols
from mlops_dagster.assets.search import grid_search_results, spark_grid_search_results
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.open_runs import Status
from mlops_dagster.stack.tracking import MlflowTracker


def _settling_sensor(dagster_status: DagsterRunStatus, mlflow_status: Status) -> SensorDefinition:
    @run_status_sensor(
        run_status=dagster_status,
        name=f"mlflow_{mlflow_status.lower()}",
        description=f"Sets MLflow runs to {mlflow_status} whose Dagster run ended with {dagster_status.value}.",
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
    description="Sets MLflow runs to FAILED whose process on this machine has died, whoever started it.",
    minimum_interval_seconds=29,
    default_status=DefaultSensorStatus.RUNNING,
)
def mlflow_abandoned(tracker: ResourceParam[MlflowTracker]) -> SkipReason:
    """Reap abandoned runs."""
    ended = tracker.reap()
    return SkipReason(f"FAILED now: {', '.join(ended)}" if ended else "No process died with an open MLflow run.")


@sensor(
    description="Adds the deployment's symbols as partitions where they are missing, as on a fresh instance.",
    minimum_interval_seconds=29,
    default_status=DefaultSensorStatus.RUNNING,
)
def deployment_symbols(
    context: SensorEvaluationContext, deployment: ResourceParam[Deployment]
) -> SensorResult | SkipReason:
    """Add the symbols that are always there."""
    missing = missing_symbols(context.instance, deployment.symbols)
    if not missing:
        return SkipReason("All symbols of the deployment are there.")
    return SensorResult(dynamic_partitions_requests=[SYMBOLS.build_add_request(missing)])


SENSORS = [mlflow_finished, mlflow_failed, mlflow_killed, mlflow_abandoned, deployment_symbols]

SEARCHES = {asset.key.to_user_string(): asset.key for asset in (grid_search_results, spark_grid_search_results)}


@sensor(
    job_name=pipelines.BUILD_MODEL.name,
    description="Builds a model with the best parameters of every search that finishes from now on, once per search, "
    "with the search's recipe, horizon and test size.",
    minimum_interval_seconds=4,
    default_status=DefaultSensorStatus.STOPPED,
)
def best_parameters_to_model(context: SensorEvaluationContext) -> SensorResult | SkipReason:
    """Ask for a build per finished search.

    The cursor says, per asset, up to which materialisation searches have been handed on. At first it is set to the
    newest, so that turning the sensor on doesn't build what was searched long ago.
    """
    handed_on = json.loads(context.cursor) if context.cursor else None
    seen: dict[str, int] = {}
    requests = []
    for name, key in SEARCHES.items():
        if handed_on is None:
            newest = context.instance.fetch_materializations(key, limit=1).records
            seen[name] = newest[0].storage_id if newest else 0
            continue
        seen[name] = handed_on[name]
        after = AssetRecordsFilter(key, after_storage_id=seen[name])
        for record in context.instance.fetch_materializations(after, limit=100, ascending=True).records:
            seen[name] = record.storage_id
            found = record.asset_materialization
            if found is not None and found.partition is not None and "forest" in found.metadata:
                requests.append(_build(context, name, record.run_id, found))
    message = SkipReason("From now on, finished searches are built." if handed_on is None else "No new search.")
    return SensorResult(run_requests=requests, skip_reason=None if requests else message, cursor=json.dumps(seen))


def _build(context: SensorEvaluationContext, asset_name: str, run_id: str, found: AssetMaterialization) -> RunRequest:
    """Ask for a build of what a search has found."""
    ops: dict[str, Any] = {
        "training_set": {"config": {key: found.metadata[key].value for key in ("recipe", "horizon", "test_size")}},
        "trained_model": {"config": found.metadata["forest"].value},
    }
    searched = context.instance.get_run_by_id(run_id)
    its_ops: Any = (searched.run_config.get("ops") if searched else None) or {}
    if "prices" in its_ops:
        ops["prices"] = its_ops["prices"]
    return RunRequest(
        # The same search is never built twice, not even if the cursor is reset.
        run_key=f"{asset_name}/{found.partition}/{run_id}",
        run_config={"ops": ops},
        partition_key=found.partition,
        tags={"search_run_id": run_id},
    )
