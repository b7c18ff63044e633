"""The sensor that builds a new model of a symbol whose forecasts have become poor."""

from datetime import datetime, timedelta, timezone

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetRecordsFilter,
    DefaultSensorStatus,
    ResourceParam,
    RunRequest,
    RunsFilter,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from mlops_dagster import pipelines
from mlops_dagster.jobs import without_prices
from mlops_dagster.stack.automation import RetrainSettings
from mlops_dagster.stack.deployment import Deployment

BECAUSE = "built_because"
_AT_ONCE = 200  # materialisations that one evaluation looks at


@sensor(
    job_name=pipelines.BUILD_MODEL.name,
    description="Builds a new model of a symbol whose forecasts of the last 20 scored days were clearly worse than "
    "'the price stays as it is', at most once a week; the gate decides whether it becomes champion. How poor and how "
    "often is in the deployment, below `retrain`.",
    minimum_interval_seconds=29,
    default_status=DefaultSensorStatus.RUNNING,
)
def poor_forecasts(
    context: SensorEvaluationContext, deployment: ResourceParam[Deployment]
) -> SensorResult | SkipReason:
    """Ask for a build per symbol with poor forecasts.

    The cursor says up to which materialisation of `forecast_quality` was looked. At first it is set to the newest.
    """
    key, settings = AssetKey(pipelines.FORECAST_QUALITY.name), deployment.retrain
    if not context.cursor:
        newest = context.instance.fetch_materializations(key, limit=1).records
        seen = newest[0].storage_id if newest else 0
        return SensorResult(skip_reason="From now on, forecasts are watched.", cursor=str(seen))
    after = AssetRecordsFilter(key, after_storage_id=int(context.cursor))
    records = context.instance.fetch_materializations(after, limit=_AT_ONCE, ascending=True).records
    newest_of = {
        record.asset_materialization.partition: (record.run_id or record.storage_id, record.asset_materialization)
        for record in records
        if record.asset_materialization is not None
    }
    requests, said = [], []
    for symbol, (made_by, quality) in newest_of.items():
        reason = None if symbol is None else _what_is_poor(quality, settings)
        if symbol is None or reason is None:
            continue
        if built := _built_lately(context, symbol, settings.every_days):
            said.append(f"{symbol}: {reason} Its last build for such a reason was {built}.")
            continue
        requests.append(
            RunRequest(
                run_key=f"{symbol}/{made_by}",
                partition_key=symbol,
                # On the prices that the forecasts were measured with; wherever they came from, they are there.
                asset_selection=without_prices(pipelines.BUILD_MODEL),
                tags={BECAUSE: reason},
            )
        )
    nothing = " ".join(said) or f"{len(newest_of)} symbols were looked at; none of their forecasts is poor."
    return SensorResult(
        run_requests=requests,
        skip_reason=None if requests else nothing,
        cursor=str(records[-1].storage_id) if records else context.cursor,
    )


def _what_is_poor(quality: AssetMaterialization, settings: RetrainSettings) -> str | None:
    """Say what is poor about a symbol's forecasts; None if nothing is, or if too few were scored to tell."""
    skill, days = (quality.metadata.get(name) for name in ("skill_vs_persistence_20", "days_scored"))
    if skill is None or days is None:
        return None
    skill_value, days_value = skill.value, days.value
    if not isinstance(skill_value, int | float) or not isinstance(days_value, int | float):
        return None
    if days_value < settings.days_scored or not skill_value < settings.skill_below:
        return None
    return (
        f"Skill {skill_value:.3f} over the last 20 scored days is below {settings.skill_below:g} "
        f"({days_value:.0f} days were scored)."
    )


def _built_lately(context: SensorEvaluationContext, symbol: str, days: int) -> str | None:
    """Return when a symbol was last built because of poor forecasts, if that was in the last days."""
    since = datetime.now(timezone.utc) - timedelta(days=days)
    filters = RunsFilter(
        job_name=pipelines.BUILD_MODEL.name,
        tags={"dagster/partition": symbol, "dagster/sensor_name": "poor_forecasts"},
        created_after=since,
    )
    records = context.instance.get_run_records(filters, limit=1)
    return f"on {records[0].create_timestamp:%Y-%m-%d}" if records else None
