import datetime as dt
from typing import NamedTuple
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import cron_string_iterator

from mlops_dagster.declared import refuse_unknown_names
from mlops_dagster.errors import ParameterError
from mlops_dagster.schedules import last_session, schedules_of

NEW_YORK = ZoneInfo("America/New_York")


def due(stack, when, schedule="predictions", zone=NEW_YORK):
    """What a schedule answers at a time; what it asks for becomes runs, as the daemon would have it."""
    found = next(one for one in schedules_of(stack.model, stack.deployment) if one.name == schedule)
    context = dg.build_schedule_context(
        instance=stack.instance,
        scheduled_execution_time=dt.datetime.fromisoformat(when).replace(tzinfo=zone),
    )
    answer = found(context)
    requests = [] if isinstance(answer, dg.SkipReason) else answer
    for request in requests:
        tags = {
            **request.tags,
            "dagster/schedule_name": schedule,
            **({"dagster/partition": key} if (key := request.partition_key) else {}),
        }
        stack.instance.add_run(dg.DagsterRun(job_name="predict_pipeline", tags=tags))
    return Answer(requests, answer.skip_message if isinstance(answer, dg.SkipReason) else None)


class Answer(NamedTuple):
    run_requests: list
    skip_message: str | None


def asked(answer):
    return [request.run_key for request in answer.run_requests]


@pytest.fixture
def two(stack_of):
    stack = stack_of(on_disk=True)
    stack.add("GSPC", "IXIC")
    return stack


def test_every_symbol_is_forecast_once_after_each_trading_day(two):
    answer = due(two, "2024-07-02 18:30")
    assert asked(answer) == ["GSPC/2024-07-02", "IXIC/2024-07-02"]
    assert answer.run_requests[0].tags["session"] == "2024-07-02"
    assert asked(due(two, "2024-07-02 19:30")) == []
    assert asked(due(two, "2024-07-03 18:30")) == ["GSPC/2024-07-03", "IXIC/2024-07-03"]  # open until 13:00


def test_holidays_and_weekends_are_skipped_with_the_reason(two):
    due(two, "2024-07-03 18:30")
    holiday = due(two, "2024-07-04 18:30")
    assert asked(holiday) == []
    assert "XNYS was closed on Thursday 2024-07-04" in holiday.skip_message
    assert "Its last finished day, Wednesday 2024-07-03, has been predicted after already" in holiday.skip_message
    assert asked(due(two, "2024-07-05 18:30")) == ["GSPC/2024-07-05", "IXIC/2024-07-05"]
    assert "Saturday" in due(two, "2024-07-06 18:30").skip_message


def test_a_day_that_was_missed_is_done_at_the_next_time(two):
    assert asked(due(two, "2024-07-06 18:30")) == ["GSPC/2024-07-05", "IXIC/2024-07-05"]


def test_many_symbols_share_runs_of_what_lies_beside_each_other(stack_of):
    stack = stack_of(on_disk=True, runs={"max_partitions_per_run": 4})
    some = [f"S{number:02}" for number in range(12)]
    stack.add(*some[:5])
    stack.add("NEW", champion=None)
    stack.add(*some[5:])
    answer = due(stack, "2024-07-02 18:30")
    wanted = ["S00 to S03", "S04", "S05 to S08", "S09 to S11"]
    assert asked(answer) == [f"{one}/2024-07-02" for one in wanted]
    first, second = answer.run_requests[:2]
    ends = {end: first.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end")}
    assert (first.partition_key, ends) == (None, {"start": "S00", "end": "S03"})
    assert second.partition_key == "S04"
    stack.add("LATE")
    assert asked(due(stack, "2024-07-02 19:30")) == ["LATE/2024-07-02"]


def test_a_symbol_that_got_its_champion_late_is_still_done(two):
    due(two, "2024-07-02 18:30")
    two.add("ACME")
    assert asked(due(two, "2024-07-02 19:30")) == ["ACME/2024-07-02"]


@pytest.mark.parametrize(
    ("exchange", "when", "zone", "session"),
    [
        ("XNYS", "2024-11-29 12:59", NEW_YORK, "2024-11-27"),  # the half day after Thanksgiving isn't over
        ("XNYS", "2024-11-29 13:00", NEW_YORK, "2024-11-29"),
        ("XNYS", "2024-03-11 15:59", NEW_YORK, "2024-03-08"),  # summer time began on the 10th
        ("XNYS", "2024-03-11 16:00", NEW_YORK, "2024-03-11"),
        ("XNYS", "2024-11-04 20:59", ZoneInfo("UTC"), "2024-11-01"),  # and ended on the 3rd
        ("XNYS", "2024-11-04 21:00", ZoneInfo("UTC"), "2024-11-04"),
        ("XTKS", "2024-07-02 18:30", NEW_YORK, "2024-07-02"),  # where it is Wednesday morning
        ("24/7", "2024-07-06 18:30", NEW_YORK, "2024-07-05"),  # a day of UTC that isn't over
    ],
)
def test_the_last_day_that_is_over(exchange, when, zone, session):
    assert str(last_session(exchange, dt.datetime.fromisoformat(when).replace(tzinfo=zone))) == session


def test_the_hour_stays_the_same_when_the_clocks_change(stack_of):
    stack = stack_of(on_disk=True)
    (daily, _) = schedules_of(stack.model, stack.deployment)
    begin = dt.datetime(2024, 3, 9, tzinfo=NEW_YORK).timestamp()
    times = cron_string_iterator(begin, daily.cron_schedule, daily.execution_timezone)
    utc = [next(times).astimezone(dt.timezone.utc) for _ in range(3)]
    assert [time.strftime("%d %H:%M") for time in utc] == ["09 23:30", "10 22:30", "11 22:30"]


def test_without_a_champion_nothing_is_asked_for(stack_of):
    stack = stack_of(on_disk=True)
    stack.add("GSPC", champion=None)
    assert "There is no champion of GSPC" in due(stack, "2024-07-02 18:30").skip_message
    stack.add("IXIC")
    assert asked(due(stack, "2024-07-02 18:30")) == ["IXIC/2024-07-02"]


def test_symbols_of_the_inbox_are_left_to_the_inbox(stack_of):
    stack = stack_of(on_disk=True)
    stack.add("ACME", origin=f"{stack.home}/inbox/prices/ACME.csv")
    stack.add("GSPC")
    assert asked(due(stack, "2024-07-02 18:30")) == ["GSPC/2024-07-02"]
    searches = due(stack, "2024-07-06 06:00", "search").run_requests
    assert {one.partition_key: [key.to_user_string() for key in one.asset_selection or []] for one in searches} == {
        "ACME": ["stock_price/training_set", "stock_price/grid_search_results"],
        "GSPC": [],
    }


def test_each_symbol_is_searched_once_a_week(stack_of):
    two = stack_of(on_disk=True)
    assert "no partitions" in due(two, "2024-07-06 06:00", "search").skip_message
    two.add("GSPC", "IXIC")
    searches = due(two, "2024-07-06 06:00", "search").run_requests
    assert [one.partition_key for one in searches] == ["GSPC", "IXIC"]
    assert {one.tags["scheduled_search"] for one in searches} == {"stock_price"}  # of which the queue lets one go


def test_a_deployment_changes_when_and_whether(stack_of):
    on, off = dg.DefaultScheduleStatus.RUNNING, dg.DefaultScheduleStatus.STOPPED
    stack = stack_of(on_disk=True)
    predictions, search = schedules_of(stack.model, stack.deployment)
    assert (predictions.default_status, search.default_status) == (off, off)
    changes = {"predictions": {"cron": "0 20 * * *", "default": "running"}}
    stack = stack_of(on_disk=True, schedules=changes)
    predictions, search = schedules_of(stack.model, stack.deployment)
    assert (predictions.default_status, search.default_status) == (on, off)
    assert (predictions.cron_schedule, predictions.execution_timezone) == ("0 20 * * *", "America/New_York")


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"schedules": {"prediction": {}}}, "did you mean predictions?"),
        ({"partitions": {"price": ["ACME"]}}, "partitions.price: .* did you mean prices?"),
    ],
)
def test_names_that_no_model_has_are_refused(stack_of, said, refused):
    stack = stack_of(**said)
    with pytest.raises(ParameterError, match=refused):
        refuse_unknown_names([stack.model.declaration], stack.deployment)
