"""The schedules: a forecast after each trading day, and a search each week."""

import datetime as dt
import zoneinfo
from collections.abc import Iterator, Sequence

import dagster as dg

from mlops_dagster import pipelines
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.jobs import without_data
from mlops_dagster.known_symbols import known_symbols
from mlops_dagster.spec.steps import ALL
from mlops_dagster.stack.automation import ScheduleSettings
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store, store_of
from mlops_dagster.steps import champion_of

_FIRST, _LAST = {"dagster/priority": "1"}, {"dagster/priority": "-1"}  # forecasts don't wait for searches
_CLOSED_AT_MOST = dt.timedelta(days=30)  # no exchange is, for longer
DAILY = "daily_forecast"
SESSION = "session"


def schedules_of(deployment: Deployment) -> Sequence[dg.ScheduleDefinition]:
    """Make the schedules at the times of a deployment."""
    return [_daily_forecast(deployment), _weekly_search(deployment)]


def _daily_forecast(deployment: Deployment) -> dg.ScheduleDefinition:
    settings = deployment.schedules
    moving = deployment.prices.source != "bundled"
    why_off = " Off by default here, because the bundled prices never change."

    @dg.schedule(
        name=DAILY,
        job_name=pipelines.FORECAST.name,
        cron_schedule=settings.forecast,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if moving else dg.DefaultScheduleStatus.STOPPED,
        description="Fetches prices and forecasts every symbol that has a champion, once per day on which "
        f"{settings.exchange} was open, after it has closed. Symbols of the inbox are forecast when a file comes."
        + ("" if moving else why_off),
    )
    def daily_forecast(
        context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        due = context.scheduled_execution_time
        session = last_session(settings.exchange, due)
        known = known_symbols(context.instance, store, deployment.inbox.path)
        ours = [one for one in known if not one.from_inbox]
        if without := [one.name for one in ours if not one.has_champion]:
            context.log.warning(
                f"No forecast without a champion: {_some(without)}. Build a model with build_model_pipeline."
            )
        if len(without) == len(ours):
            return dg.SkipReason(
                f"None of {len(ours)} symbols has a champion: build a model with build_model_pipeline."
            )
        done = _done(context.instance, session)
        to_do = [one.name for one in ours if one.has_champion and one.name not in done]
        if not to_do:
            return dg.SkipReason(_nothing_new(settings, session, due))
        return [
            dg.RunRequest(run_key=f"{name}/{session}", partition_key=name, tags={SESSION: str(session), **_FIRST})
            for name in to_do
        ]

    return daily_forecast


def prediction_schedule(deployment: Deployment, model: OfModel) -> dg.ScheduleDefinition | None:
    """Make the schedule of a declared model's predictions, if it says when."""
    declaration = None if model.dataset else model.declaration
    if declaration is None or declaration.predictions is None or declaration.predictions.schedule is None:
        return None
    job = f"{declaration.name}_predict_pipeline"

    @dg.schedule(
        name=f"{declaration.name}_predictions",
        job_name=job,
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
            return dg.SkipReason(f"There is no champion to predict with; run {declaration.name}_build_model_pipeline.")
        due = context.scheduled_execution_time.isoformat()
        return [dg.RunRequest(run_key=f"{key or ALL}/{due}", partition_key=key) for key in able]

    return predictions


def _weekly_search(deployment: Deployment) -> dg.ScheduleDefinition:
    settings = deployment.schedules

    @dg.schedule(
        name="weekly_search",
        job_name=pipelines.SEARCH_MODEL.name,
        cron_schedule=settings.search,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Searches a small grid of hyper-parameters of every symbol, one symbol after the other. Turn on "
        "the sensor best_parameters_to_model, too, to build what was found. Off by default: it costs the most, and "
        "parameters rarely change.",
    )
    def weekly_search(
        context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        day = context.scheduled_execution_time.astimezone(zoneinfo.ZoneInfo(settings.timezone)).date()
        known = known_symbols(context.instance, store, deployment.inbox.path)
        if not known:
            yield dg.SkipReason("There are no symbols.")
        for one in known:
            yield dg.RunRequest(
                run_key=f"{one.name}/{day}",
                partition_key=one.name,
                # The deployment's source doesn't have what came as a file.
                asset_selection=without_data(pipelines.SEARCH_MODEL) if one.from_inbox else None,
                tags=_LAST,
            )

    return weekly_search


def last_session(exchange: str, now: dt.datetime) -> dt.date:
    """Return the last day on which an exchange was open and by now has closed.

    Raises
    ------
    LookupError
        If its calendar has no such day.
    """
    import exchange_calendars

    today = now.astimezone(dt.timezone.utc).date()
    first, last = today - _CLOSED_AT_MOST, today + dt.timedelta(days=2)
    # Half days close early: each day has a time of its own.
    closes = exchange_calendars.get_calendar(exchange, start=str(first), end=str(last)).closes
    closed = closes[closes <= now]
    if closed.empty:
        raise LookupError(f"The calendar of {exchange} has no day from {first} to {today}.")
    day: dt.date = closed.index[-1].date()
    return day


def _done(instance: dg.DagsterInstance, session: dt.date) -> set[str]:
    """Return the symbols that this schedule has asked for already, for a day of the exchange."""
    filters = dg.RunsFilter(tags={SESSION: str(session), "dagster/schedule_name": DAILY})
    return {run.tags.get("dagster/partition", "") for run in instance.get_runs(filters)}


def _nothing_new(settings: ScheduleSettings, session: dt.date, due: dt.datetime) -> str:
    here = due.astimezone(zoneinfo.ZoneInfo(settings.timezone))
    return (
        f"{settings.exchange} was closed on {here:%A %Y-%m-%d}, or is still open at {here:%H:%M}. Its last finished "
        f"trading day, {session:%A %Y-%m-%d}, has been forecast from already."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
