"""Where daily prices come from: the bundled files, CSV or Parquet files, or Yahoo Finance.

Cells are returned as they were found (those of a CSV file as text), so that `ml/prices.py` can name the bad ones.
"""

from __future__ import annotations

import datetime as dt
from importlib import resources
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse
from mlops_dagster.pipelines import BUNDLED_SYMBOLS, PATH, SOURCE, check_symbol
from mlops_dagster.stack.file_finding import OutOfReachError, SourceError
from mlops_dagster.stack.limits import LimitSettings, raise_it
from mlops_dagster.stack.secrets import as_cause, redacted
from mlops_dagster.stack.table_files import read_files

if TYPE_CHECKING:
    import pandas as pd

# What the bundled files are called is not what Yahoo calls them. Any other symbol is asked for as it is.
_YAHOO_NAMES = {"GSPC": "^GSPC", "IXIC": "^IXIC"}


def read_prices(
    symbol: str,
    *,
    source: str = "bundled",
    path: str | None = None,
    sha256: str | None = None,
    start: str | None = None,
    end: str | None = None,
    limits: LimitSettings | None = None,
) -> tuple[pd.DataFrame, str]:
    """Read one symbol's daily prices, not yet validated.

    Parameters
    ----------
    symbol : str
        For example ``GSPC``. Yahoo is asked for ``^GSPC`` and ``^IXIC`` by the names of the bundled files, and for
        every other symbol by its own name.
    source : {"bundled", "files", "yahoo"}
        Where to read.
    path : str, optional
        For "files" only, and needed there: a CSV (UTF-8, commas, a header) or Parquet file, also compressed with gzip,
        or a glob. ``{symbol}`` stands for the symbol, ``~`` for the home directory. Several files are joined in the
        order of their names.
    sha256 : str, optional
        For "files" only: what :func:`sha256_of` says of the bytes that are meant. Others are refused.
    start, end : str, optional
        For "yahoo" only: the first day, and the day after the last one, as YYYY-MM-DD. Not given: all there is, up to
        the day before today's date in UTC, because a day that isn't over has no prices yet.
    limits : LimitSettings, optional
        How much is read at most. Not given: what a deployment allows that says nothing of it.

    Returns
    -------
    frame : DataFrame
        The rows as they were found.
    origin : str
        Where they come from, in words. It depends on the parameters and on the files, not on the time.

    Raises
    ------
    ParameterError
        If a parameter is bad, missing, or of another source.
    SourceError
        If there are no rows to be had.

    Examples
    --------
    >>> frame, origin = read_prices("GSPC")
    >>> origin, len(frame), frame.loc[0, "Close"]
    ('bundled file GSPC.csv', 5031, '1228.099976')
    """
    check_symbol(symbol)
    SOURCE.check(source)
    if source == "files":
        if path is None:
            raise refuse("path", path, "source 'files' needs the path of a CSV or Parquet file, or a glob.")
        PATH.check(path)
    belongs = {"path": (path, "files"), "sha256": (sha256, "files"), "start": (start, "yahoo"), "end": (end, "yahoo")}
    for name, (value, its_source) in belongs.items():
        if value is not None and source != its_source:
            raise refuse(
                name, value, f"it belongs to source {its_source!r}, but the source is {source!r}: leave it out."
            )
    if source == "files":
        return read_files(str(path).replace("{symbol}", symbol), sha256, limits or LimitSettings())
    if source == "yahoo":
        return _read_yahoo(symbol, start, end, limits or LimitSettings())
    return _read_bundled(symbol)


def _read_bundled(symbol: str) -> tuple[pd.DataFrame, str]:
    if symbol not in BUNDLED_SYMBOLS:
        raise SourceError(
            f"symbol={symbol!r}: there are no bundled prices of it, only of {', '.join(BUNDLED_SYMBOLS)}. "
            "Use source 'files' with a path, or source 'yahoo'."
        )
    with resources.as_file(resources.files("mlops_dagster") / "data" / f"{symbol}.csv") as file:
        return read_files(str(file), None, LimitSettings())[0], f"bundled file {file.name}"


# ------------------------------------------------------------------------------------------------------------- yahoo


def _read_yahoo(symbol: str, start: str | None, end: str | None, limits: LimitSettings) -> tuple[pd.DataFrame, str]:
    first, last = (_check_day(name, day) for name, day in (("start", start), ("end", end)))
    if first and last and first >= last:
        raise refuse("end", end, f"give a day after start={start!r}.")
    try:
        import yfinance
    except ImportError as error:
        raise SourceError(
            "source='yahoo' needs the package yfinance, which isn't installed. "
            'Install it: pip install "mlops_dagster[yahoo]".'
        ) from error

    name = _YAHOO_NAMES.get(symbol, symbol)
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
