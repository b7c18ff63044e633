"""The sensor that builds a new model where predictions have become poor."""

from datetime import datetime, timedelta, timezone

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.jobs import without_data
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import store_of

BECAUSE = "built_because"
_AT_ONCE = 200  # materialisations that one evaluation looks at


def poor_predictions(model: OfModel, deployment: Deployment) -> dg.SensorDefinition:
    """Make the sensor of a model."""
    settings, declaration, build = deployment.retrain, model.declaration, model.pipelines[0]
    name, key = model.named("poor_predictions"), model.key(names.PREDICTION_QUALITY)

    @dg.sensor(
        name=name,
        job_name=build.name,
        description="Builds a new model where the last 100 predictions whose truth has come were worse than the "
        "baseline, at most once a week; the gate decides whether it becomes champion. After how many predictions and "
        "how often is in the deployment, below `retrain`.",
        minimum_interval_seconds=29,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        # The cursor says up to which materialisation of the quality was looked. At first it is set to the newest.
        if not context.cursor:
            newest = context.instance.fetch_materializations(key, limit=1).records
            seen = newest[0].storage_id if newest else 0
            return dg.SensorResult(skip_reason="From now on, predictions are watched.", cursor=str(seen))
        after = dg.AssetRecordsFilter(key, after_storage_id=int(context.cursor))
        records = context.instance.fetch_materializations(after, limit=_AT_ONCE, ascending=True).records
        newest_of = {
            record.asset_materialization.partition: (record.run_id or record.storage_id, record.asset_materialization)
            for record in records
            if record.asset_materialization is not None
        }
        requests, said = [], []
        for partition, (made_by, quality) in newest_of.items():
            reason = (
                _worse_than_baseline(quality, declaration, deployment)
                if (partition is None) == (model.partitions is None)
                else None
            )
            if reason is None:
                continue
            if built := _built_lately(context, name, build.name, partition, settings.every_days):
                said.append(f"{partition or model.name}: {reason} Its last build for such a reason was {built}.")
                continue
            requests.append(
                dg.RunRequest(
                    run_key=f"{partition or names.ALL}/{made_by}",
                    partition_key=partition,
                    # On the rows that the predictions were measured with; wherever they came from, they are there.
                    asset_selection=without_data(build, model),
                    tags={BECAUSE: reason},
                )
            )
        nothing = " ".join(said) or f"{len(newest_of)} were looked at; none of their predictions is poor."
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else nothing,
            cursor=str(records[-1].storage_id) if records else context.cursor,
        )

    return sensor


def _worse_than_baseline(
    quality: dg.AssetMaterialization, declaration: Declaration, deployment: Deployment
) -> str | None:
    """Say so of a model's last predictions; None if they aren't, or if too few were scored to tell."""
    from mlops_dagster.steps import Inputs
    from mlops_dagster.steps.questions import predictions_beat_baseline

    tables = Inputs(
        quality.partition or names.ALL, store_of(deployment, declaration), known=names.steps_of(declaration)
    )
    settings = deployment.retrain
    found = predictions_beat_baseline(declaration, tables, fewest=settings.days_scored)
    skill = found.numbers.get("skill_vs_baseline")
    if found.good is None or skill is None:  # too few, or nobody knows what perfect answers would have
        return found.said if found.good is False else None
    below = f"{found.said} The skill of the last 100, {skill:.3f}, is below {settings.skill_below:g}."
    return below if skill < settings.skill_below else None


def _built_lately(
    context: dg.SensorEvaluationContext, sensor: str, job: str, partition: str | None, days: int
) -> str | None:
    """Return when the model was last built because of poor predictions, if that was in the last days."""
    tags = {"dagster/sensor_name": sensor} | ({"dagster/partition": partition} if partition else {})
    since = datetime.now(timezone.utc) - timedelta(days=days)
    records = context.instance.get_run_records(dg.RunsFilter(job_name=job, tags=tags, created_after=since), limit=1)
    return f"on {records[0].create_timestamp:%Y-%m-%d}" if records else None
