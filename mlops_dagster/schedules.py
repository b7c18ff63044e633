"""The schedules of a model: its predictions, and its searches, when the declaration or the deployment says."""

import datetime as dt
import zoneinfo
from collections.abc import Collection, Iterator, Sequence

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.jobs import without_data
from mlops_dagster.known_partitions import known_partitions
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Schedule
from mlops_dagster.spec.parameters import Pipeline
from mlops_dagster.stack.deployment import Deployment

SESSION, SEARCH = "session", "scheduled_search"
"""Tags: the day of an exchange that a run predicts after; and runs of which the queue lets one go at a time."""

_START, _END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_FEW = 10  # partitions that have a run each
_FIRST, _LAST = {"dagster/priority": "1"}, {"dagster/priority": "-1"}  # predictions don't wait for searches
_CLOSED_AT_MOST = dt.timedelta(days=30)  # no exchange is, for longer
_STATUS = {"running": dg.DefaultScheduleStatus.RUNNING, "stopped": dg.DefaultScheduleStatus.STOPPED}


def schedules_of(model: OfModel, deployment: Deployment) -> list[dg.ScheduleDefinition]:
    """Make the schedules that a model declares, changed as the deployment says."""
    declaration = model.declaration
    if model.dataset:
        return []
    found = []
    for step, said, make in (
        (names.PREDICTIONS, declaration.predictions, _predictions),
        (names.GRID_SEARCH_RESULTS, declaration.search, _search),
    ):
        pipeline = model.pipeline(step)
        if said is not None and said.schedule is not None and pipeline is not None:
            found.append(make(model, pipeline, deployment, said.schedule))
    return found


def _predictions(model: OfModel, job: Pipeline, deployment: Deployment, said: Schedule) -> dg.ScheduleDefinition:
    name, calendar = model.named("predictions"), model.declaration.calendar
    when = deployment.schedule(name, said)
    once = f", once for each day on which {calendar} was open, after it has closed" if calendar else ""

    @dg.schedule(
        name=name,
        job_name=job.name,
        cron_schedule=when.cron,
        execution_timezone=when.timezone,
        default_status=_STATUS[when.default or "running"],
        description=f"Predicts with each champion of {model.name}{once}. What came through the inbox is left to the "
        "inbox.",
    )
    def predictions(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        known = known_partitions(model, deployment, context.instance)
        ours = [one for one in known if not one.from_inbox]
        build = f"Build a model with {model.pipelines[0].name}."
        without = [one.key or model.name for one in ours if not one.has_champion]
        if not ours:
            return dg.SkipReason(
                "There is nothing to predict for" + (": all came through the inbox." if known else ".")
            )
        if len(without) == len(ours):
            some = "champion" if model.partitions is None else f"champion of {_some(without)}"
            return dg.SkipReason(f"There is no {some} to predict with. {build}")
        if without:
            context.log.warning(f"No prediction without a champion: {_some(without)}. {build}")
        due = context.scheduled_execution_time
        session = last_session(calendar, due) if calendar else None
        keys = [one.key or names.ALL for one in known]  # in Dagster's order
        done = _done(context.instance, name, session, keys) if session else set()
        to_do = {one.key or names.ALL for one in ours if one.has_champion} - done
        if session and calendar and not to_do:
            return dg.SkipReason(_nothing_new(calendar, when.timezone, session, due))
        longest = deployment.runs.max_partitions_per_run if len(to_do) > _FEW else 1
        return [
            dg.RunRequest(
                run_key=f"{' to '.join(dict.fromkeys((some[0], some[-1])))}/{session or due.isoformat()}",
                partition_key=some[0] if len(some) == 1 and model.partitions else None,
                tags={
                    **_FIRST,
                    **({SESSION: str(session)} if session else {}),
                    **({_START: some[0], _END: some[-1]} if len(some) > 1 else {}),
                },
            )
            for some in _stretches(keys, to_do, longest)
        ]

    return predictions


def _stretches(keys: Sequence[str], wanted: Collection[str], longest: int) -> Iterator[list[str]]:
    """Split some keys into stretches without a gap, since a run of many takes a range.

    Examples
    --------
    >>> list(_stretches("abcdefg", "abcefg", 2))
    [['a', 'b'], ['c'], ['e', 'f'], ['g']]
    """
    some: list[str] = []
    for key in keys:
        if some and (key not in wanted or len(some) == longest):
            yield some
            some = []
        if key in wanted:
            some.append(key)
    if some:
        yield some


def _search(model: OfModel, job: Pipeline, deployment: Deployment, said: Schedule) -> dg.ScheduleDefinition:
    name = model.named("search")
    when = deployment.schedule(name, said)

    @dg.schedule(
        name=name,
        job_name=job.name,
        cron_schedule=when.cron,
        execution_timezone=when.timezone,
        default_status=_STATUS[when.default or "stopped"],
        description=f"Searches the first preset of {model.name}, of one partition after the other. Turn on the sensor "
        f"{model.named('best_parameters_to_model')}, too, to build what was found.",
    )
    def search(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        known = known_partitions(model, deployment, context.instance)
        if not known:
            return dg.SkipReason("There are no partitions.")
        return [
            dg.RunRequest(
                run_key=f"{one.key or names.ALL}/{context.scheduled_execution_time.isoformat()}",
                partition_key=one.key,
                # Where the declaration looks for rows there are none of what came as a file, or others.
                asset_selection=without_data(job, model) if one.from_inbox else None,
                tags={**_LAST, SEARCH: model.name},
            )
            for one in known
        ]

    return search


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


def _done(instance: dg.DagsterInstance, schedule: str, session: dt.date, keys: Sequence[str]) -> set[str]:
    """Return which of all partitions a schedule has asked for already, for a day of the exchange."""
    filters = dg.RunsFilter(tags={SESSION: str(session), "dagster/schedule_name": schedule})
    done, at = set[str](), {key: place for place, key in enumerate(keys)}
    for run in instance.get_runs(filters):
        one = run.tags.get("dagster/partition") or names.ALL
        first, last = run.tags.get(_START, one), run.tags.get(_END, one)
        if first in at and last in at:
            done.update(keys[at[first] : at[last] + 1])
    return done


def _nothing_new(calendar: str, timezone: str, session: dt.date, due: dt.datetime) -> str:
    here = due.astimezone(zoneinfo.ZoneInfo(timezone))
    return (
        f"{calendar} was closed on {here:%A %Y-%m-%d}, or is still open at {here:%H:%M}. Its last finished day, "
        f"{session:%A %Y-%m-%d}, has been predicted after already."
    )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:10]) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")
