"""The schedules of models."""

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.spec.steps import ALL, PREDICT
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import store_of
from mlops_dagster.steps import champion_of


def prediction_schedule(deployment: Deployment, model: OfModel) -> dg.ScheduleDefinition | None:
    """Make the schedule of a declared model's predictions, if it says when."""
    declaration = None if model.dataset else model.declaration
    if declaration is None or declaration.predictions is None or declaration.predictions.schedule is None:
        return None

    @dg.schedule(
        name=declaration.named("predictions"),
        job_name=declaration.named(PREDICT),
        cron_schedule=declaration.predictions.schedule.cron,
        execution_timezone=declaration.predictions.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Predicts with the champion of {declaration.name}, as its declaration says.",
    )
    def predictions(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        partitions, store = model.partitions, store_of(deployment, declaration)
        known = partitions.get_partition_keys(dynamic_partitions_store=context.instance) if partitions else [None]
        able = [key for key in known if champion_of(key or ALL, store) is not None]
        if not able:
            return dg.SkipReason(f"There is no champion to predict with; run {model.pipelines[0].name}.")
        due = context.scheduled_execution_time.isoformat()
        return [dg.RunRequest(run_key=f"{key or ALL}/{due}", partition_key=key) for key in able]

    return predictions
