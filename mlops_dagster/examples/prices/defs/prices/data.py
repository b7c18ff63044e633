"""Daily prices: the bundled files, files of one's own, or Yahoo Finance; and what they have to be."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from mlops_dagster.errors import needs, refuse
from mlops_dagster.modeling.violations import REMOVE, ContractError, Violation
from mlops_dagster.stack.file_finding import OutOfReachError, SourceError
from mlops_dagster.stack.limits import LimitSettings, raise_it
from mlops_dagster.stack.secrets import as_cause, redacted
from mlops_dagster.stack.table_files import read_files

BUNDLED = ("GSPC", "IXIC")
COLUMNS: Mapping[str, str] = {
    "Date": "Trading day",
    "Open": "First price of the day [index points or currency]",
    "High": "Highest price of the day [index points or currency]",
    "Low": "Lowest price of the day [index points or currency]",
    "Close": "Last price of the day [index points or currency]",
    "AdjClose": "Last price, adjusted for dividends and splits [index points or currency]",
    "Volume": "Shares traded that day",
}
"""What each column holds, its unit in brackets."""


def load(
    symbol: str,
    *,
    source: str | None = None,
    path: str | None = None,
    sha256: str | None = None,
    start: str | None = None,
    end: str | None = None,
    limits: LimitSettings | None = None,
) -> pd.DataFrame:
    """Return one symbol's daily prices as they were found, their columns by the contract's names.

    Parameters
    ----------
    source : {"bundled", "files", "yahoo"}, optional
        Where to read. Not given: files if there is a path, else those that are bundled.
    path : str, optional
        For "files" only, and needed there: a CSV (UTF-8, commas, a header) or Parquet file, also compressed with gzip,
        or a glob. ``{symbol}`` stands for the symbol, ``~`` for the home directory. Several files are joined in the
        order of their names.
    sha256 : str, optional
        For "files" only: the SHA-256 of the bytes that are meant. Others are refused.
    start, end : str, optional
        For "yahoo" only: the first day, and the day after the last one, as YYYY-MM-DD. Not given: all there is, up to
        the day before today's date in UTC, because a day that isn't over has no prices yet.
    limits : LimitSettings, optional
        How much is read at most. Not given: what a deployment allows that says nothing of it.

    Raises
    ------
    ParameterError
        If a parameter is missing, bad, or of another source.
    SourceError
        If there are no rows to be had.
    ContractError
        If a column is missing or there twice.
    """
    source = source or ("files" if path else "bundled")
    belongs = {"path": (path, "files"), "sha256": (sha256, "files"), "start": (start, "yahoo"), "end": (end, "yahoo")}
    for name, (value, its_source) in belongs.items():
        if value is not None and source != its_source:
            cure = f"it belongs to source {its_source!r}, but the source is {source!r}: leave it out."
            raise refuse(name, value, cure)
    allowed = limits or LimitSettings()
    if source == "files":
        if path is None:
            raise refuse("path", path, "source 'files' needs the path of a CSV or Parquet file, or a glob.")
        if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
            raise refuse("sha256", sha256, "give 64 hexadecimal digits, as sha256sum prints them.")
        raw, origin = read_files(path.replace("{symbol}", symbol), sha256, allowed)
    elif source == "yahoo":
        raw, origin = _read_yahoo(symbol, start, end, allowed)
    elif symbol in BUNDLED:
        raw, _ = read_files(str(Path(__file__).parent / f"{symbol}.csv"), None, LimitSettings())
        origin = f"bundled file {symbol}.csv"
    else:
        raise SourceError(
            f"symbol={symbol!r}: there are no bundled prices of it, only of {', '.join(BUNDLED)}. "
            "Use source 'files' with a path, or source 'yahoo'."
        )
    violations, prices = _pick_columns(raw)
    if violations:
        raise ContractError(origin, violations)
    prices.attrs["origin"] = origin
    return prices


# ---------------------------------------------------------------------------------------------------------- contract

# What later steps can compute with: pandas' nanoseconds end in 2262, and scikit-learn's trees have 32-bit floats.
_FIRST_DAY, _LAST_DAY = pd.Timestamp("1678-01-01"), pd.Timestamp("2260-12-31")
_SMALLEST, _LARGEST = 1e-12, 1e18
_FEWEST_ROWS = 250
"""About one trading year: with less, neither a look-back of 20 days nor a test set says anything."""

# The other prices of the day, which its extremes have to enclose. High and Low are compared once, under High.
_ENCLOSED = {"High": ["Open", "Low", "Close"], "Low": ["Open", "Close"]}


def _is_enclosed(column: str) -> Callable[[pd.DataFrame], pd.Series[bool]]:
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
            lambda dates: ~((dates < _FIRST_DAY) | (dates > _LAST_DAY)),
            error=f"is not between {_FIRST_DAY.date()} and {_LAST_DAY.date()}",
            description="correct the century",
        ),
    ],
)
_FINITE = pa.Check(lambda values: ~np.isinf(values), error="is infinite", description=REMOVE)
_LARGE = pa.Check(
    lambda values: ~((values > _LARGEST) & (values < np.inf)),
    error=f"is above {_LARGEST:g}, too large to compute with",
    description=REMOVE,
)
_PRICE = pa.Column(
    float,
    checks=[
        _FINITE,
        _LARGE,
        pa.Check(lambda prices: ~(prices <= 0), error="is not above zero", description=REMOVE),
        pa.Check(
            lambda prices: ~((prices > 0) & (prices < _SMALLEST)),
            error=f"is below {_SMALLEST:g}, too small to compute with",
            description=REMOVE,
        ),
    ],
)
_VOLUME = pa.Column(
    float,
    checks=[_FINITE, _LARGE, pa.Check(lambda volumes: ~(volumes < 0), error="is negative", description=REMOVE)],
)
_A_YEAR = pa.Check(
    lambda prices: len(prices) >= _FEWEST_ROWS,
    name="Date",
    error=f"there are fewer than {_FEWEST_ROWS} rows",
    description=f"give at least {_FEWEST_ROWS}, about one trading year",
)
PRICES = pa.DataFrameSchema(
    {"Date": _DATE, **dict.fromkeys(("Open", "High", "Low", "Close", "AdjClose"), _PRICE), "Volume": _VOLUME},
    checks=[
        pa.Check(_is_enclosed("High"), name="High", error="is below the day's Open, Low or Close", description=REMOVE),
        pa.Check(_is_enclosed("Low"), name="Low", error="is above the day's Open or Close", description=REMOVE),
        _A_YEAR,
    ],
).update_columns({name: {"description": said} for name, said in COLUMNS.items()})
"""Dates increase, prices are above zero, High and Low enclose the day's others. A check says problem and cure."""


# ----------------------------------------------------------------------------------------------------------- columns

# What pandas calls a column without a name: in its own file, read again by itself, and after reset_index().
_NAMELESS = ("", "Unnamed: 0", "index")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def _pick_columns(frame: pd.DataFrame) -> tuple[list[Violation], pd.DataFrame]:
    """Take the contract's columns, in its order, and say which are missing or there twice."""
    names, tickers = _names_of(frame)
    found = ", ".join(names) if names else "none"
    listed = f" (the columns found: {found if len(found) <= 200 else found[:200] + ' ...'})"
    violations, picked = [], {}
    if len(tickers) > 1:
        what = f"there are prices of {len(tickers)} tickers, {', '.join(tickers[:5])}"
        cure = f"give one file per symbol (pandas: frame.xs({tickers[0]!r}, axis=1, level='Ticker'))"
        return [Violation("Date", what, cure)], pd.DataFrame(index=pd.RangeIndex(len(frame)))
    for column in COLUMNS:
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
    exact = (column, "Adj Close") if column == "AdjClose" else (column,)
    if places := [place for place, name in enumerate(names) if name in exact]:
        return places
    alike = [place for place, name in enumerate(names) if re.sub("[ _]", "", name).lower() == column.lower()]
    if column == "Date" and not alike and names and names[0] in _NAMELESS:
        # A table's index, which pandas writes without a name: dates, or the rows' numbers.
        return [0] if all(_DAY.match(str(cell)) for cell in frame.iloc[:3, 0]) else []
    return alike


# ------------------------------------------------------------------------------------------------------------- yahoo


def _read_yahoo(symbol: str, start: str | None, end: str | None, limits: LimitSettings) -> tuple[pd.DataFrame, str]:
    first, last = (_check_day(name, day) for name, day in (("start", start), ("end", end)))
    if first and last and first >= last:
        raise refuse("end", end, f"give a day after start={start!r}.")
    try:
        import yfinance
    except ImportError as error:
        raise SourceError(needs("source='yahoo'", error)) from error

    name = f"^{symbol}" if symbol in BUNDLED else symbol  # as Yahoo calls the bundled ones
    origin = f"Yahoo Finance, {name}" + (f" from {start}" if start else "") + (f" until before {end}" if end else "")
    until = last or dt.datetime.now(dt.timezone.utc).date()
    since: dict[str, Any] = {"start": first} if first else {"period": "max"}
    hidden = yfinance.config.debug.hide_exceptions
    yfinance.config.debug.hide_exceptions = (
        False  # otherwise a failure is logged, and looks like a symbol without prices
    )
    try:
        frame: pd.DataFrame = yfinance.Ticker(name).history(
            **since, end=until, interval="1d", auto_adjust=False, actions=False, timeout=30
        )
    except Exception as error:  # noqa: BLE001 - whatever yfinance and its HTTP client raise
        raise _yahoo_failure(origin, error) from as_cause(error)
    finally:
        yfinance.config.debug.hide_exceptions = hidden
    if frame.empty:
        raise SourceError(f"{origin}: there are no prices. Check the symbol at finance.yahoo.com, and the days.")
    if len(frame) > limits.rows:
        raise SourceError(f"{origin}: there are {len(frame):,} rows. {raise_it('rows')}")
    frame = frame.rename_axis("Date").reset_index()
    # The exchange's own dates: its midnights are in its zone, and at one where summer time begins at midnight.
    frame["Date"] = frame["Date"].dt.tz_localize(None).dt.normalize()
    return frame, origin


def _check_day(name: str, day: str | None) -> dt.date | None:
    try:
        return None if day is None else dt.datetime.strptime(day, "%Y-%m-%d").date()
    except (TypeError, ValueError):
        raise refuse(name, day, "give a day as YYYY-MM-DD.") from None


def _yahoo_failure(origin: str, error: Exception) -> SourceError:
    import yfinance.exceptions as theirs

    if isinstance(error, theirs.YFTickerMissingError) or _status(error) == 404:
        cure = "Check the symbol at finance.yahoo.com, and the days."
        return SourceError(f"{origin}: there are no prices ({redacted(str(error))}). {cure}")
    if isinstance(error, theirs.YFRateLimitError):
        said, cure = "Yahoo refuses more requests from here for now.", "Try again later, or use source 'files'."
    else:
        said = f"Yahoo can't be reached or answers nonsense ({type(error).__name__}: {redacted(str(error))})."
        cure = "Check the network and its proxy, or use source 'files'."
    return OutOfReachError(f"{origin}: {said} {cure}")


def _status(error: Exception) -> object:
    """Return the HTTP status in an error of curl_cffi or requests, whichever yfinance uses."""
    return getattr(getattr(error, "response", None), "status_code", None)
