"""When the next rows are to come, on the days of exchanges and of what has times of its own."""

import pandas as pd
import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.stack.exchanges import next_times


def days(found):
    return [str(day.date()) for day in found[0]]


def sessions(exchange, first, last):
    import exchange_calendars

    return pd.Series(exchange_calendars.get_calendar(exchange, start=first, end=last).sessions)


def test_holidays_and_weekends_of_the_exchange_are_skipped():
    known = sessions("XNYS", "2018-01-02", "2018-12-31")
    found = next_times(known, 13, "XNYS")
    assert days(found)[:3] == ["2019-01-02", "2019-01-03", "2019-01-04"]
    assert days(found)[-1] == "2019-01-18"
    assert "2019-01-21" not in days(next_times(known, 20, "XNYS"))  # Martin Luther King's day
    assert found[1] == "days of exchange XNYS"


def test_days_of_long_ago_are_known_too():
    assert days(next_times(sessions("XNYS", "1990-06-01", "1991-07-03"), 1, "XNYS")) == ["1991-07-05"]


def test_a_few_missing_days_make_no_other_exchange():
    known = sessions("XNYS", "2018-01-02", "2018-12-31").drop([17, 100, 200])
    assert next_times(known, 1, "XNYS")[1] == "days of exchange XNYS"


@pytest.mark.parametrize(
    ("known", "expected", "counted"),
    [
        (
            pd.Series(pd.date_range("2018-01-01", "2018-12-28")),
            ["2018-12-29", "2018-12-30"],
            "D",
        ),
        (pd.Series(pd.bdate_range("2018-01-01", "2018-12-24")), ["2018-12-25", "2018-12-26"], "B"),
        (pd.Series(pd.date_range("2018-01-05", "2018-12-28", freq="7D")), ["2019-01-04", "2019-01-11"], "W-FRI"),
    ],
    ids=["every day", "weekdays without holidays", "once a week"],
)
def test_a_symbol_that_keeps_other_days_has_its_own(known, expected, counted):
    found = next_times(known, 2, "XNYS")
    assert days(found) == expected
    assert found[1] == f"as regular as those before ({counted})"


def test_what_nothing_says_is_not_known():
    known = pd.Series(pd.to_datetime(["2018-01-01", "2018-01-03", "2018-01-09", "2019-02-03"]))
    assert next_times(known, 1) == (None, "not known: the times before aren't regular")
    assert next_times(pd.Series(["a", "b", "c"]), 1)[0] is None


def test_an_exchange_of_every_day_is_one_too():
    found = next_times(pd.Series(pd.date_range("2018-01-01", "2018-12-28")), 2, "24/7")
    assert (days(found), found[1]) == (["2018-12-29", "2018-12-30"], "days of exchange 24/7")


def test_beyond_the_end_of_a_calendar_days_of_the_week_are_counted():
    known = pd.Series(pd.bdate_range("2049-01-01", "2050-12-01"))
    assert days(next_times(known, 250, "XKRX"))[0] == "2050-12-02"


def test_an_unknown_exchange_is_said():
    with pytest.raises(ParameterError, match=r"calendar='NOPE' .*XNYS"):
        next_times(pd.Series(pd.bdate_range("2018-01-01", "2018-12-24")), 2, "NOPE")
