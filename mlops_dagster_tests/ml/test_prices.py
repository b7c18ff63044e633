"""Every kind of bad price is refused, and named so that its cell can be found."""

import datetime as dt
import math
import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_dagster.ml.prices import MIN_ROWS, NUMBER_COLUMNS, PRICE_COLUMNS, PriceDataError, validate_prices

ROW = 17  # where a test spoils a cell; counted from 1 below the header it is row 18


def good(rows=MIN_ROWS):
    """Monday to Friday, Open 10, High 12, Low 9, Close 11."""
    prices = pd.DataFrame({"Date": pd.bdate_range("2020-01-01", periods=rows).strftime("%Y-%m-%d")})
    for column, value in zip(NUMBER_COLUMNS, (10.0, 12.0, 9.0, 11.0, 11.0, 5000.0), strict=True):
        prices[column] = value
    return prices


def spoilt(column, value, row=ROW):
    prices = good().astype({column: object})
    prices.loc[row, column] = value
    return prices


def violations(frame):
    with pytest.raises(PriceDataError) as caught:
        validate_prices(frame, source="a file")
    assert str(caught.value).startswith("a file: ")
    return caught.value.violations


def the_violation(frame):
    (violation,) = violations(frame)
    return violation


def test_prices_come_back_in_one_form():
    given_ = good().rename(columns={"AdjClose": "Adj Close"}).astype(str)
    given_ = given_[["Volume", *given_.columns[:-1]]].assign(Dividends="none", Note=7)
    given_.index = range(1000, 1000 + len(given_))
    before = given_.copy()

    prices = validate_prices(given_, source="a file")

    assert tuple(prices.columns) == tuple(PRICE_COLUMNS)
    assert prices["Date"].dtype == "datetime64[us]"
    assert (prices[list(NUMBER_COLUMNS)].dtypes == "float64").all()
    assert prices.index.equals(pd.RangeIndex(MIN_ROWS))
    assert prices.loc[1].tolist() == [pd.Timestamp("2020-01-02"), 10.0, 12.0, 9.0, 11.0, 11.0, 5000.0]
    pd.testing.assert_frame_equal(given_, before)


@pytest.mark.parametrize(
    "convert",
    [
        lambda days: days,
        lambda days: pd.to_datetime(days),
        lambda days: pd.to_datetime(days).astype("datetime64[s]"),
        lambda days: pd.to_datetime(days).dt.date,
        lambda days: pd.Series([dt.datetime.fromisoformat(day) for day in days], dtype=object),
        lambda days: days.astype("string"),
        lambda days: days + " 00:00:00",
    ],
    ids=["text", "datetime", "seconds", "date", "python datetime", "pandas string", "midnight"],
)
def test_dates_of_any_type_without_a_time_zone_are_read(convert):
    prices = validate_prices(good().assign(Date=lambda frame: convert(frame["Date"])), source="a file")
    assert prices["Date"].iloc[[0, -1]].dt.strftime("%Y-%m-%d").tolist() == ["2020-01-01", "2020-12-15"]


@pytest.mark.parametrize("kind", [float, "float32", "int64", "Int64", "Float64", str, object, Decimal])
def test_numbers_of_any_type_are_read(kind):
    opened = good()["Open"]
    opened = opened.map(Decimal) if kind is Decimal else opened.astype(kind)
    assert (validate_prices(good().assign(Open=opened), source="a file")["Open"] == 10.0).all()


def test_texts_are_read_to_the_nearest_double():
    texts = [repr(float(value)) for value in np.random.default_rng(0).uniform(9.5, 11.5, MIN_ROWS)]
    assert validate_prices(good().assign(Open=texts), source="a file")["Open"].map(repr).tolist() == texts


@pytest.mark.parametrize("column", PRICE_COLUMNS)
def test_a_missing_column_is_named_and_the_rest_is_still_checked(column):
    other = "Open" if column != "Open" else "Close"
    missing, broken = sorted(violations(spoilt(other, -1.0).drop(columns=column)), key=lambda each: each.row or 0)
    assert (missing.column, missing.problem) == (column, "the column is missing")
    assert missing.cure.startswith("add it (the columns found: ")
    assert (broken.column, broken.row) == (other, ROW + 1)


def two_levels(frame, *tickers):
    return pd.concat(dict.fromkeys(tickers, frame), axis=1, names=["Ticker", "Price"]).swaplevel(axis=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.rename(columns=str.lower),
        lambda frame: frame.rename(columns={"AdjClose": "adj_close", "Date": "DATE"}),
        lambda frame: frame.rename(columns={"Date": ""}),
        lambda frame: frame.rename(columns={"Date": "Unnamed: 0"}),
        lambda frame: two_levels(frame.set_index("Date"), "ACME").reset_index(),
        lambda frame: two_levels(frame.set_index("Date"), "ACME").swaplevel(axis=1).reset_index(),
        lambda frame: frame.assign(close="another").rename(columns={"Volume": "volume"}),
        lambda frame: frame.rename_axis("index").reset_index(),
    ],
    ids=["lower", "snake", "nameless", "read again", "yfinance", "by ticker", "exact first", "numbered rows"],
)
def test_well_known_spellings_are_the_same_columns(change):
    expected = validate_prices(good(), source="a file")
    pd.testing.assert_frame_equal(validate_prices(change(good()), source="a file"), expected)


def test_what_could_mean_several_things_is_refused():
    several = the_violation(two_levels(good().set_index("Date"), "ACME", "EMCA").reset_index())
    assert (several.problem, "one file per symbol" in several.cure) == (
        "there are prices of 2 tickers, ACME, EMCA",
        True,
    )
    twice = the_violation(good().rename(columns={"Close": "close"}).assign(CLOSE=1.0))
    assert twice.problem == "there are 'close' and 'CLOSE'"
    nameless = the_violation(good().rename(columns={"Date": ""}).assign(**{"": range(MIN_ROWS)}))
    assert (nameless.column, nameless.problem) == ("Date", "the column is missing")
    assert "yfinance: auto_adjust=False" in the_violation(good().drop(columns="AdjClose")).cure


def test_dates_in_the_index_are_pointed_out():
    frame = good().assign(Date=lambda frame: pd.to_datetime(frame["Date"])).set_index("Date")
    assert "reset_index()" in the_violation(frame).cure


def test_two_adjusted_closes_are_one_too_many():
    violation = the_violation(good().assign(**{"Adj Close": 11.0}))
    assert (violation.column, violation.problem) == ("AdjClose", "there are 'AdjClose' and 'Adj Close'")


def test_a_column_that_is_there_twice_is_refused():
    frame = pd.concat([good(), good()[["Open"]]], axis=1)
    assert the_violation(frame).problem == "there are 'Open' and 'Open'"


@pytest.mark.parametrize("frame", [pd.DataFrame(), good(0)], ids=["nothing", "a header"])
def test_an_empty_frame_is_refused(frame):
    assert "there are no rows" in [violation.problem for violation in violations(frame)]


@pytest.mark.parametrize("rows", [1, 20, MIN_ROWS - 1])
def test_too_few_rows_are_refused(rows):
    violation = the_violation(good(rows))
    assert str(violation) == f"Date: there are {rows} rows; give at least 250, about one trading year."


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        *((column, math.nan, "is missing") for column in NUMBER_COLUMNS),
        *((column, None, "is missing") for column in PRICE_COLUMNS),
        *((column, "", "is missing") for column in PRICE_COLUMNS),
        *((column, text, "is not a number") for column in NUMBER_COLUMNS for text in ("n/a", "1,000.5", "1_0", "--")),
        *((column, -1.0, "is not above zero") for column in NUMBER_COLUMNS[:-1]),
        *((column, 0, "is not above zero") for column in NUMBER_COLUMNS[:-1]),
        *((column, text, "is infinite") for column in NUMBER_COLUMNS for text in (math.inf, -math.inf, "inf")),
        ("Volume", -1, "is negative"),
        ("Close", True, "is not a number"),
        ("Close", dt.date(2020, 1, 1), "is not a number"),
        ("Close", 1j, "is not a number"),
        ("Date", "someday", "is not a date"),
        ("Date", "24/01/2020", "is not a date"),
        ("Date", "2020-02-30", "is not a date"),
        ("Date", 20200124, "is not a date"),
        ("Date", "1620-01-24", "is not between 1678-01-01 and 2260-12-31"),
        ("Date", "9999-01-24", "is not between 1678-01-01 and 2260-12-31"),
        ("Volume", 1e308, "is above 1e+18, too large to compute with"),
        ("Low", 1e-300, "is below 1e-12, too small to compute with"),
        ("Date", "2020-01-24T00:00:00Z", "has a time zone"),
        ("Date", "2020-01-24 00:00:00-05:00", "has a time zone"),
        ("Date", pd.Timestamp("2020-01-24", tz="America/New_York"), "has a time zone"),
        ("Date", "2020-01-24 16:00", "has a time of day, but daily prices have one row per date"),
        ("Date", "2020-01-23", "the date was there before"),
        ("Date", "2019-12-31", "is earlier than a row above it"),
    ],
)
def test_a_bad_cell_is_named(column, value, problem):
    found = {violation.problem: violation for violation in violations(spoilt(column, value))}
    violation = found[problem]
    assert (violation.column, violation.row, violation.rows) == (column, ROW + 1, 1)
    if column != "Date":
        assert violation.date == "2020-01-24"
    assert str(value)[:10] in str(violation)
    assert violation.cure in str(violation)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("High", 8.0, "High = 8.0 on 2020-01-24 (row 18): is below the day's Open 10.0, Low 9.0, Close 11.0"),
        ("High", 10.5, "High = 10.5 on 2020-01-24 (row 18): is below the day's Open 10.0, Low 9.0, Close 11.0"),
        ("Low", 10.5, "Low = 10.5 on 2020-01-24 (row 18): is above the day's Open 10.0, Close 11.0"),
        ("Open", 12.5, "High = 12.0 on 2020-01-24 (row 18): is below the day's Open 12.5, Low 9.0, Close 11.0"),
        ("Close", 8.5, "Low = 9.0 on 2020-01-24 (row 18): is above the day's Open 10.0, Close 8.5"),
    ],
)
def test_the_days_extremes_enclose_its_other_prices(column, value, sentence):
    violation = the_violation(spoilt(column, value))
    assert str(violation) == sentence + "; correct it at the source or remove the row."


def test_a_high_below_the_low_is_named_for_both():
    assert [violation.column for violation in violations(spoilt("Low", 13.0))] == ["High", "Low"]


def test_what_is_no_price_at_all_is_reported_once():
    assert the_violation(spoilt("Open", -5.0)).column == "Open"


def test_a_whole_column_with_a_time_zone_is_one_violation():
    frame = good().assign(Date=lambda frame: pd.to_datetime(frame["Date"]).dt.tz_localize("UTC"))
    violation = the_violation(frame)
    assert (violation.problem, violation.row, violation.rows) == ("has a time zone", 1, MIN_ROWS)


def test_unsorted_rows_are_named_from_the_first_on():
    violation = the_violation(good().iloc[::-1])
    assert (violation.row, violation.date, violation.rows) == (2, "2020-12-14", MIN_ROWS - 1)


def test_all_violations_come_in_one_error_each_with_its_first_row_and_how_many_there_are():
    frame = good().astype(object)
    frame.loc[[3, 9, 40], "Volume"] = -5
    frame.loc[8, "Close"] = "?"
    frame.loc[5, "Date"] = frame.loc[4, "Date"]
    with pytest.raises(PriceDataError) as caught:
        validate_prices(frame, source="prices.csv")
    assert str(caught.value).splitlines() == [
        "prices.csv: the prices can't be used, 3 violations of the price contract:",
        "  - Date = '2020-01-07' on 2020-01-07 (row 6): the date was there before; keep one row per date.",
        "  - Close = '?' on 2020-01-13 (row 9): is not a number; write it as a plain number such as 1234.5.",
        "  - Volume = -5 on 2020-01-06 (row 4 and 2 more): is negative; correct it at the source or remove the row.",
    ]


def test_the_error_survives_pickling():
    with pytest.raises(PriceDataError) as caught:
        validate_prices(good(20), source="a file")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.violations == caught.value.violations


# ------------------------------------------------------------------------------------------------------- properties

positive = st.floats(min_value=1e-6, max_value=1e9, allow_subnormal=False)


@st.composite
def price_frames(draw):
    """Valid prices: four positive numbers a day, the largest is the High and the smallest the Low."""
    rows = draw(st.integers(MIN_ROWS, MIN_ROWS + 30))
    # Drawn for ten days and repeated: hypothesis shrinks ten days, not three hundred.
    days = draw(st.lists(st.tuples(positive, positive, positive, positive, positive), min_size=10, max_size=10))
    frame = pd.DataFrame([days[row % 10] for row in range(rows)], columns=["a", "b", "c", "d", "AdjClose"])
    ranked = np.sort(frame[["a", "b", "c", "d"]].to_numpy(), axis=1)
    upward = draw(st.booleans())
    start = draw(st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)))
    steps = draw(st.lists(st.integers(1, 5), min_size=10, max_size=10))
    offsets = np.cumsum([steps[row % 10] for row in range(rows)])
    return pd.DataFrame(
        {
            "Date": (np.datetime64(start, "us") + offsets.astype("timedelta64[D]")).astype("datetime64[us]"),
            "Open": ranked[:, 1 if upward else 2],
            "High": ranked[:, 3],
            "Low": ranked[:, 0],
            "Close": ranked[:, 2 if upward else 1],
            "AdjClose": frame["AdjClose"],
            "Volume": draw(st.sampled_from([0.0, 1.0, 1e15])),
        }
    )


few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(price_frames())
def test_valid_prices_stay_as_they_are(frame):
    pd.testing.assert_frame_equal(validate_prices(frame, source="a file"), frame, check_exact=True)
    pd.testing.assert_frame_equal(validate_prices(frame.astype(str), source="a file"), frame, check_exact=True)


@few
@given(price_frames(), st.data())
def test_any_single_bad_cell_is_caught_and_named(frame, data):
    row = data.draw(st.integers(0, len(frame) - 1), "row")
    column = data.draw(st.sampled_from(tuple(PRICE_COLUMNS)), "column")
    if column == "Date":
        value = data.draw(st.sampled_from([None, "", "soon", 3.5, "2020-1-1", "2020-01-01T00:00Z"]), "value")
    else:
        below = [-1, "-0.5", -math.inf] + ([] if column == "Volume" else [0, "0.0"])
        value = data.draw(st.sampled_from([None, "", "much", math.nan, math.inf, True, *below]), "value")
    bad = frame.astype({column: object})
    bad.loc[row, column] = value
    violation = violations(bad)[0]
    assert (violation.column, violation.row) == (column, row + 1)
    assert violation.date == (None if column == "Date" else str(frame["Date"].iloc[row].date()))
