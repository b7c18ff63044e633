"""The price contract: what a table of daily prices must be before anything is computed from it.

A bad cell is an error to be shown, never one to be filled in.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from mlops_dagster.errors import MlopsError
from mlops_dagster.ml.cells import UNREADABLE, read_dates, read_numbers

PRICE_COLUMNS: Mapping[str, str] = {
    "Date": "Trading day",
    "Open": "First price of the day [index points or currency]",
    "High": "Highest price of the day [index points or currency]",
    "Low": "Lowest price of the day [index points or currency]",
    "Close": "Last price of the day [index points or currency]",
    "AdjClose": "Last price, adjusted for dividends and splits [index points or currency]",
    "Volume": "Shares traded that day",
}
"""What each column holds, its unit in brackets."""
NUMBER_COLUMNS = tuple(PRICE_COLUMNS)[1:]
MIN_ROWS = 250
"""About one trading year: with less, neither a look-back of 20 days nor a test set says anything."""

# What later steps can compute with: pandas' nanoseconds end in 2262, and scikit-learn's trees have 32-bit floats.
FIRST_DAY, LAST_DAY = pd.Timestamp("1678-01-01"), pd.Timestamp("2260-12-31")
SMALLEST, LARGEST = 1e-12, 1e18

_YAHOO_ADJ_CLOSE = "Adj Close"
# What pandas calls a column without a name: in its own file, read again by itself, and after reset_index().
_NAMELESS = ("", "Unnamed: 0", "index")
# The other prices of the day, which its extremes have to enclose. High and Low are compared once, under High.
_ENCLOSED = {"High": ["Open", "Low", "Close"], "Low": ["Open", "Close"]}
_REMOVE = "correct it at the source or remove the row"


@dataclass(frozen=True)
class Violation:
    """One rule of the contract that the prices break: where first, and what to do about it.

    Parameters
    ----------
    column : str
        The column, as the contract calls it.
    problem, cure : str
        What is wrong and what to do, as halves of one sentence.
    row : int, optional
        The first offending row, counted from 1 below the header. None: it isn't about single rows.
    date : str, optional
        That row's date, as far as it can be read.
    value : str, optional
        The offending cell as it was given.
    """

    column: str
    problem: str
    cure: str
    row: int | None = None
    date: str | None = None
    value: str | None = None
    rows: int = 1

    def __str__(self) -> str:
        where = self.column
        if self.row is not None:
            on = f" on {self.date}" if self.date else ""
            more = f" and {self.rows - 1:,} more" if self.rows > 1 else ""
            where = f"{self.column} = {self.value}{on} (row {self.row}{more})"
        return f"{where}: {self.problem}; {self.cure}."


class PriceDataError(MlopsError, ValueError):
    """The prices break the contract. The message lists every violation, `violations` holds them one by one."""

    exit_status = 2

    def __init__(self, source: str, violations: Sequence[Violation]) -> None:
        super().__init__(source, tuple(violations))  # both as args, so that the error can be pickled
        self.source = source
        self.violations = tuple(violations)

    def __str__(self) -> str:
        lines = "".join(f"\n  - {violation}" for violation in self.violations)
        count = "one violation" if len(self.violations) == 1 else f"{len(self.violations)} violations"
        return f"{self.source}: the prices can't be used, {count} of the price contract:{lines}"


def is_enclosed(column: str) -> Callable[[pd.DataFrame], pd.Series[bool]]:
    """Return the rule that High, or Low, encloses the day's other prices."""

    def check(day: pd.DataFrame) -> pd.Series[bool]:
        # A cell that is no price at all is reported once, by its own rule, and compared with nothing.
        day = day[[column, *_ENCLOSED[column]]]
        day = day.where((day > 0) & (day < np.inf))
        others = day[_ENCLOSED[column]]
        out = day[column] < others.max(axis=1) if column == "High" else day[column] > others.min(axis=1)
        enclosed: pd.Series[bool] = ~out
        return enclosed

    return check


def _increases(dates: pd.Series[Any]) -> pd.Series[bool]:
    return ~(dates < dates.cummax())


_DATE = pa.Column(
    "datetime64[us]",
    unique=True,
    report_duplicates="exclude_first",
    checks=[
        pa.Check(_increases, error="is earlier than a row above it", description="sort the rows by Date"),
        pa.Check(
            lambda dates: dates == dates.dt.normalize(),
            error="has a time of day, but daily prices have one row per date",
            description="give dates only",
        ),
        pa.Check(
            lambda dates: ~((dates < FIRST_DAY) | (dates > LAST_DAY)),
            error=f"is not between {FIRST_DAY.date()} and {LAST_DAY.date()}",
            description="correct the century",
        ),
    ],
)
_FINITE = pa.Check(lambda values: ~np.isinf(values), error="is infinite", description=_REMOVE)
_LARGE = pa.Check(
    lambda values: ~((values > LARGEST) & (values < np.inf)),
    error=f"is above {LARGEST:g}, too large to compute with",
    description=_REMOVE,
)
_PRICE = pa.Column(
    float,
    checks=[
        _FINITE,
        _LARGE,
        pa.Check(lambda prices: ~(prices <= 0), error="is not above zero", description=_REMOVE),
        pa.Check(
            lambda prices: ~((prices > 0) & (prices < SMALLEST)),
            error=f"is below {SMALLEST:g}, too small to compute with",
            description=_REMOVE,
        ),
    ],
)
_VOLUME = pa.Column(
    float,
    checks=[_FINITE, _LARGE, pa.Check(lambda volumes: ~(volumes < 0), error="is negative", description=_REMOVE)],
)
PRICE_SCHEMA = pa.DataFrameSchema(
    {"Date": _DATE, **dict.fromkeys(("Open", "High", "Low", "Close", "AdjClose"), _PRICE), "Volume": _VOLUME},
    checks=[
        pa.Check(is_enclosed("High"), name="High", error="is below the day's", description=_REMOVE),
        pa.Check(is_enclosed("Low"), name="Low", error="is above the day's", description=_REMOVE),
    ],
    ordered=True,
)
"""The contract as a schema. A check's error is the problem, its description the cure."""

# What pandera checks by itself comes without words of ours.
_BUILT_IN = {
    SchemaErrorReason.SERIES_CONTAINS_NULLS: ("is missing", _REMOVE),
    SchemaErrorReason.SERIES_CONTAINS_DUPLICATES: ("the date was there before", "keep one row per date"),
}


def validate_prices(frame: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Check daily prices against the contract and return them in its one form.

    Parameters
    ----------
    frame : pandas.DataFrame
        The columns of `PRICE_COLUMNS`, in any order, in upper or lower case; ``Adj Close`` is accepted for
        ``AdjClose``, a first column without a name that holds dates for ``Date``, and yfinance's two levels of columns
        if they are of one ticker. Other columns are ignored. Dates may be texts (``YYYY-MM-DD``), dates or datetimes
        without a time zone, from `FIRST_DAY` to `LAST_DAY`; numbers may be texts, as
        a CSV file has them.
    source : str
        Where the rows come from, in words, for the error message.

    Returns
    -------
    pandas.DataFrame
        A new frame with exactly `PRICE_COLUMNS`: Date as ``datetime64[us]``, all others as ``float64``, rows numbered
        from 0. Numbers that came as texts are read to the nearest double.

    Raises
    ------
    PriceDataError
        If the prices break the contract, with all violations: dates unique and increasing, prices above zero and
        finite, High at least and Low at most the day's other prices, Volume zero or more, nothing missing, and at
        least `MIN_ROWS` rows.

    Examples
    --------
    >>> days = pd.bdate_range("2020-01-01", periods=250)
    >>> prices = pd.DataFrame({"Date": days, "Open": 2.0, "High": 3.0, "Low": 1.0, "Close": 2.0, "Adj Close": 2.0})
    >>> prices["Volume"] = "1000"
    >>> validate_prices(prices, source="example").dtypes["Volume"]
    dtype('float64')
    >>> prices.loc[7, "High"] = 0.5
    >>> validate_prices(prices, source="example")
    Traceback (most recent call last):
    ...
    mlops_dagster.ml.prices.PriceDataError: example: the prices can't be used, one violation of the price contract:
      - High = 0.5 on 2020-01-10 (row 8): is below the day's Open 2.0, Low 1.0, Close 2.0; correct it at the ...
    """
    violations, raw = pick_columns(frame)
    problems: dict[str, dict[int, str]] = {}
    columns: dict[str, Any] = {}
    for column in raw.columns:
        columns[column], problems[column] = (read_dates if column == "Date" else read_numbers)(raw[column])
    parsed: pd.DataFrame = pd.DataFrame(columns, index=pd.RangeIndex(len(raw)))

    report = _Report(raw, parsed)
    violations += [violation for column in raw.columns for violation in report.unreadable(column, problems[column])]
    violations += report.broken_rules(problems)
    if len(raw) < MIN_ROWS:
        found = "there are no rows" if raw.empty else f"there are {len(raw)} rows"
        violations.append(Violation("Date", found, f"give at least {MIN_ROWS}, about one trading year"))
    if violations:
        order = {column: number for number, column in enumerate(PRICE_COLUMNS)}
        raise PriceDataError(source, sorted(violations, key=lambda violation: order[violation.column]))
    return parsed


def pick_columns(frame: pd.DataFrame) -> tuple[list[Violation], pd.DataFrame]:
    """Take the contract's columns, in its order, and say which are missing or there twice."""
    names, tickers = _names_of(frame)
    found = ", ".join(names) if names else "none"
    listed = f" (the columns found: {found if len(found) <= 200 else found[:200] + ' ...'})"
    violations, picked = [], {}
    if len(tickers) > 1:
        what = f"there are prices of {len(tickers)} tickers, {', '.join(tickers[:5])}"
        cure = f"give one file per symbol (pandas: frame.xs({tickers[0]!r}, axis=1, level='Ticker'))"
        return [Violation("Date", what, cure)], pd.DataFrame(index=pd.RangeIndex(len(frame)))
    for column in PRICE_COLUMNS:
        places = _places(column, names, frame)
        if len(places) == 1:
            picked[column] = frame.iloc[:, places[0]].reset_index(drop=True)
        elif places:
            twice = " and ".join(repr(names[place]) for place in places)
            violations.append(Violation(column, f"there are {twice}", "keep one of them"))
        else:
            cure = f"add it{listed}"
            if column == "Date" and isinstance(frame.index, pd.DatetimeIndex):
                cure = "the dates are the frame's index: call reset_index() on it"
            elif column == "AdjClose":
                cure += (
                    ": Yahoo has it as Adj Close (yfinance: auto_adjust=False); if Close is adjusted for dividends and "
                    "splits already, or there were none, copy Close"
                )
            violations.append(Violation(column, "the column is missing", cure))
            listed = ""
    return violations, pd.DataFrame(picked, index=pd.RangeIndex(len(frame)))


def _names_of(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the columns' names and, if they have two levels as yfinance makes them, the tickers of the other one."""
    if frame.columns.nlevels != 2:
        return [str(name) for name in frame.columns], []
    levels = [[str(name) for name in frame.columns.get_level_values(level)] for level in (0, 1)]
    at = 0 if "Close" in levels[0] else 1
    names = [name or other for name, other in zip(levels[at], levels[1 - at], strict=True)]
    return names, list(dict.fromkeys(one for one, name in zip(levels[1 - at], levels[at], strict=True) if one and name))


def _places(column: str, names: Sequence[str], frame: pd.DataFrame) -> list[int]:
    """Return which columns are the one that the contract means: by its exact name, else by one that is spelt alike."""
    exact = (column, _YAHOO_ADJ_CLOSE) if column == "AdjClose" else (column,)
    if places := [place for place, name in enumerate(names) if name in exact]:
        return places
    alike = [place for place, name in enumerate(names) if re.sub("[ _]", "", name).lower() == column.lower()]
    if column == "Date" and not alike and names and names[0] in _NAMELESS:
        # A table's index, which pandas writes without a name: dates, or the rows' numbers.
        values, problems = read_dates(frame.iloc[:3, 0])
        return [0] if not problems and not pd.isna(values).all() else []
    return alike


@dataclass(frozen=True)
class _Report:
    """Turns problems of cells into violations, with the cells as they were given."""

    raw: pd.DataFrame
    parsed: pd.DataFrame

    def violation(self, column: str, rows: Sequence[int], problem: str, cure: str) -> Violation:
        row = min(rows)
        cell = self.raw[column].iloc[row]
        value = str(cell) if isinstance(cell, pd.Timestamp | dt.date) else repr(getattr(cell, "item", lambda: cell)())
        value = value if len(value) <= 40 else value[:40] + "..."
        return Violation(column, problem, cure, row + 1, self.date(row), value, len(rows))

    def date(self, row: int) -> str | None:
        if "Date" not in self.parsed or pd.isna(self.parsed["Date"].iloc[row]):
            return None
        return str(self.parsed["Date"].iloc[row].date())

    def unreadable(self, column: str, problems: dict[int, str]) -> list[Violation]:
        found = []
        for problem in dict.fromkeys(problems.values()):
            rows = [row for row, its_problem in problems.items() if its_problem == problem]
            found.append(self.violation(column, rows, problem, UNREADABLE[problem]))
        return found

    def broken_rules(self, unreadable: dict[str, dict[int, str]]) -> list[Violation]:
        schema = PRICE_SCHEMA
        if len(self.parsed.columns) < len(PRICE_COLUMNS):
            # The day's extremes can't be compared with what isn't there; single columns can still be checked.
            schema = pa.DataFrameSchema({column: PRICE_SCHEMA.columns[column] for column in self.parsed.columns})
        try:
            schema.validate(self.parsed, lazy=True)
        except SchemaErrors as errors:
            found = [self.broken_rule(error, unreadable) for error in errors.schema_errors]
            return [violation for violation in found if violation is not None]
        return []

    def broken_rule(self, error: SchemaError, unreadable: dict[str, dict[int, str]]) -> Violation | None:
        check = error.check
        # A rule for the whole frame has its column in its name: pandera then reports one case per row AND column.
        column = str(error.column_name if error.column_name in self.parsed else getattr(check, "name", None))
        if not isinstance(error.failure_cases, pd.DataFrame) or column not in self.parsed:
            raise error  # not a rule of ours that is broken but a rule that broke: a bug, not a bad price
        rows = sorted(set(error.failure_cases["index"].astype(int)))
        if error.reason_code in _BUILT_IN:
            rows = [row for row in rows if row not in unreadable[column]]
            problem, cure = _BUILT_IN[error.reason_code]
        else:
            problem, cure = str(check.error), str(check.description)
        if not rows:
            return None
        if error.column_name not in self.parsed:
            others = self.parsed.loc[rows[0], _ENCLOSED[column]]
            problem += " " + ", ".join(f"{name} {value}" for name, value in others.items())
        return self.violation(column, rows, problem, cure)
