"""The schedules: a forecast after each trading day, and a search each week."""

import datetime as dt
import zoneinfo
from collections.abc import Iterator, Sequence

import dagster as dg

from mlops_dagster import pipelines
from mlops_dagster.jobs import without_data
from mlops_dagster.known_symbols import known_symbols
from mlops_dagster.schedules import SEARCH, last_session
from mlops_dagster.stack.automation import ScheduleSettings
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store

_FIRST, _LAST = {"dagster/priority": "1"}, {"dagster/priority": "-1"}  # forecasts don't wait for searches
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
                tags={**_LAST, SEARCH: "prices"},
            )

    return weekly_search


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
