"""The sensor that builds what a search has found to be best."""

from typing import Any

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.jobs import without_data
from mlops_dagster.spec import steps as names

BEST = "best_parameters_to_model"
_AT_ONCE = 100  # materialisations that one evaluation looks at


def best_parameters_to_model(model: OfModel) -> dg.SensorDefinition:
    """Make the sensor of a model that has a search."""
    build, key = model.pipelines[0], model.key(names.GRID_SEARCH_RESULTS)

    @dg.sensor(
        name=model.named(BEST),
        job_name=build.name,
        description=f"Builds a model with the best parameters of every search of {model.name} that a run of Dagster "
        "finishes from now on, once per search, on the search's training set.",
        minimum_interval_seconds=4,
        default_status=dg.DefaultSensorStatus.STOPPED,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        # The cursor says up to which materialisation searches have been handed on. At first it is set to the newest, so
        # that turning the sensor on doesn't build what was searched long ago.
        if not context.cursor:
            newest = context.instance.fetch_materializations(key, limit=1).records
            seen = newest[0].storage_id if newest else 0
            return dg.SensorResult(skip_reason="From now on, finished searches are built.", cursor=str(seen))
        after = dg.AssetRecordsFilter(key, after_storage_id=int(context.cursor))
        records = context.instance.fetch_materializations(after, limit=_AT_ONCE, ascending=True).records
        requests = [
            _build(context, model, record.run_id, found)
            for record in records
            # A search outside of Dagster has no run, and whoever made it decides what is built.
            if record.run_id and (found := record.asset_materialization) is not None and "forest" in found.metadata
        ]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "No new search.",
            cursor=str(records[-1].storage_id) if records else context.cursor,
        )

    return sensor


def _build(
    context: dg.SensorEvaluationContext, model: OfModel, run_id: str, found: dg.AssetMaterialization
) -> dg.RunRequest:
    """Ask for a build of what a search has found, on the rows and the training set that it was found on."""
    asked = {one.name for one in model.steps[names.TRAINING_SET].parameters} & set(found.metadata)
    ops: dict[str, Any] = {
        model.op(names.TRAINING_SET): {"config": {name: found.metadata[name].value for name in sorted(asked)}},
        model.op(names.TRAINED_MODEL): {"config": found.metadata["forest"].value},
    }
    searched = context.instance.get_run_by_id(run_id)
    its_ops: Any = (searched.run_config.get("ops") if searched else None) or {}
    if (data := model.op(names.DATA)) in its_ops:
        ops[data] = its_ops[data]
    build = model.pipelines[0]
    # A search that left the rows as they were is built on the same.
    selected = searched.asset_selection if searched else None
    without = selected and model.key(names.DATA) not in selected
    return dg.RunRequest(
        # The same search is never built twice, not even if the cursor is reset.
        run_key=f"{found.partition or names.ALL}/{run_id}",
        run_config={"ops": ops},
        partition_key=found.partition,
        asset_selection=without_data(build, model) if without else None,
        tags={"search_run_id": run_id},
    )
