"""The sensor that builds what a search has found to be best."""

import json
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetRecordsFilter,
    DefaultSensorStatus,
    RunRequest,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from mlops_dagster import pipelines
from mlops_dagster.assets.step_assets import grid_search_results, spark_grid_search_results
from mlops_dagster.jobs import without_data

SEARCHES = {asset.key.to_user_string(): asset.key for asset in (grid_search_results, spark_grid_search_results)}


@sensor(
    job_name=pipelines.BUILD_MODEL.name,
    description="Builds a model with the best parameters of every search that a run of Dagster finishes from now on, "
    "once per search, with the search's recipe, horizon and test size.",
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
            # A search outside of Dagster has no run, and whoever made it decides what is built.
            if record.run_id and found is not None and found.partition is not None and "forest" in found.metadata:
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
    # A search that left the prices as they were is built on the same.
    selected = searched.asset_selection if searched else None
    on_them = without_data(pipelines.BUILD_MODEL)
    return RunRequest(
        # The same search is never built twice, not even if the cursor is reset.
        run_key=f"{asset_name}/{found.partition}/{run_id}",
        run_config={"ops": ops},
        partition_key=found.partition,
        asset_selection=on_them if selected and AssetKey(pipelines.PRICES.name) not in selected else None,
        tags={"search_run_id": run_id},
    )
