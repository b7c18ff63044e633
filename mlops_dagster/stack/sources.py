"""Where daily prices come from: the bundled files, CSV or Parquet files, or Yahoo Finance.

What belongs here: getting at the rows, and saying well why that failed. What doesn't: whether they are good prices.
Cells are returned as they were found (those of a CSV file as text), so that `ml/prices.py` can name the bad ones.
"""

from __future__ import annotations

import csv
import datetime as dt
import difflib
import glob
import hashlib
import io
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.pipelines import BUNDLED_SYMBOLS, SOURCE, MlopsError, check_symbol, refuse

if TYPE_CHECKING:
    import pandas as pd

_PARQUET = (".parquet", ".pq")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# What the bundled files are called is not what Yahoo calls them. Any other symbol is asked for as it is.
_YAHOO_NAMES = {"GSPC": "^GSPC", "IXIC": "^IXIC"}


class PriceSourceError(MlopsError):
    """The prices can't be read; the message names the path or symbol, what was found there, and the cure."""

    exit_status = 2


class PricesOutOfReachError(PriceSourceError):
    """The prices can't be read now, for example since the network is down; later they may be."""

    exit_status = 1


def read_prices(
    symbol: str,
    *,
    source: str = "bundled",
    path: str | None = None,
    sha256: str | None = None,
    start: str | None = None,
    end: str | None = None,
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
        For "files" only, and needed there: a CSV (UTF-8, commas, a header) or Parquet file, or a glob. ``{symbol}``
        stands for the symbol, ``~`` for the home directory. Several files are joined in the order of their names.
    sha256 : str, optional
        For "files" only: what :func:`sha256_of` says of the bytes that are meant. Others are refused.
    start, end : str, optional
        For "yahoo" only: the first day, and the day after the last one, as YYYY-MM-DD. Not given: all there is, up to
        the day before today's date in UTC, because a day that isn't over has no prices yet.

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
    PriceSourceError
        If there are no rows to be had.

    Examples
    --------
    >>> frame, origin = read_prices("GSPC")
    >>> origin, len(frame), frame.loc[0, "Close"]
    ('bundled file GSPC.csv', 5031, '1228.099976')
    """
    check_symbol(symbol)
    SOURCE.check(source)
    if source == "files" and path is None:
        raise refuse("path", path, "source 'files' needs the path of a CSV or Parquet file, or a glob.")
    belongs = {"path": (path, "files"), "sha256": (sha256, "files"), "start": (start, "yahoo"), "end": (end, "yahoo")}
    for name, (value, its_source) in belongs.items():
        if value is not None and source != its_source:
            raise refuse(
                name, value, f"it belongs to source {its_source!r}, but the source is {source!r}: leave it out."
            )
    if source == "files":
        if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
            raise refuse("sha256", sha256, "give 64 hexadecimal digits, as sha256sum prints them.")
        return _read_files(symbol, str(path), sha256)
    if source == "yahoo":
        return _read_yahoo(symbol, start, end)
    return _read_bundled(symbol)


def _read_bundled(symbol: str) -> tuple[pd.DataFrame, str]:
    if symbol not in BUNDLED_SYMBOLS:
        raise PriceSourceError(
            f"symbol={symbol!r}: there are no bundled prices of it, only of {', '.join(BUNDLED_SYMBOLS)}. "
            "Use source 'files' with a path, or source 'yahoo'."
        )
    file = resources.files("mlops_dagster") / "data" / f"{symbol}.csv"
    return _parse_csv(file.read_bytes(), file.name), f"bundled file {file.name}"


# ------------------------------------------------------------------------------------------------------------- files


def _read_files(symbol: str, pattern: str, sha256: str | None) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    frames: list[pd.DataFrame] = []
    try:
        files = _find_files(pattern.replace("{symbol}", symbol))
        contents = [file.read_bytes() for file in files]
        _refuse_other_bytes(pattern, contents, sha256)
        for file, content in zip(files, contents, strict=True):
            parse = _parse_parquet if file.suffix.lower() in _PARQUET else _parse_csv
            frame = parse(content, str(file))
            if frames and list(frame.columns) != list(frames[0].columns):
                raise PriceSourceError(
                    f"path={str(file)!r} has the columns {', '.join(map(str, frame.columns))}, but {files[0].name} "
                    f"has {', '.join(map(str, frames[0].columns))}. Give all files the same columns in the same order."
                )
            frames.append(frame)
    except OSError as error:
        cure = "Give this user the right to read it." if isinstance(error, PermissionError) else "Check path and disk."
        what = error.filename or pattern
        raise PricesOutOfReachError(f"path={str(what)!r} can't be read: {error.strerror or error}. {cure}") from error
    origin = str(files[0]) if len(files) == 1 else f"{len(files)} files, {files[0]} to {files[-1].name}"
    return pd.concat(frames, ignore_index=True), origin


def sha256_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the bytes of some files, one after the other, without holding them in memory."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _refuse_other_bytes(path: str, contents: Sequence[bytes], sha256: str | None) -> None:
    if sha256 is None:
        return
    digest = hashlib.sha256(b"".join(contents))
    if digest.hexdigest() != sha256.lower():
        raise PriceSourceError(
            f"path={path!r} has changed since it was seen: its SHA-256 is {digest.hexdigest()[:12]}..., expected was "
            f"{sha256[:12].lower()}.... Run again on what is there now; the sensor price_inbox does so by itself."
        )


def _find_files(pattern: str) -> list[Path]:
    if "://" in pattern:
        raise PriceSourceError(f"path={pattern!r} is a URL. Give a path on this machine; copy or mount what it holds.")
    # Absolute in every message: whoever reads it rarely knows the working directory.
    path = Path(pattern).expanduser().absolute()
    if path.is_dir():
        inside = _listing(path, path.name)
        raise PriceSourceError(
            f"path={str(path)!r} is a directory{inside}. Give a file, or a glob such as {path}/*.csv."
        )
    if path.exists():
        found = [path]
    elif glob.has_magic(str(path)):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 absolute
    else:
        raise PriceSourceError(f"path={str(path)!r}: there is no such file. {_nearest(path)}")
    files = [one for one in found if one.is_file()]
    if not files:
        what = f"{found[0]} is no regular file" if found else "no file matches"
        raise PriceSourceError(f"path={str(path)!r}: {what}. {_nearest(path)}")
    return files


def _nearest(path: Path) -> str:
    """Say what there is instead of a file that isn't there."""
    parent = next(one for one in path.parents if one.is_dir())
    if parent != path.parent:
        return f"The nearest directory that exists is {parent}{_listing(parent, path.relative_to(parent).parts[0])}."
    return f"The directory {parent} exists{_listing(parent, path.name)}. Check the name and the symbol."


def _listing(folder: Path, wanted: str) -> str:
    try:
        names = sorted(one.name + "/" * one.is_dir() for one in folder.iterdir() if not one.name.startswith("."))
    except OSError as error:
        return f" ({error.strerror})"
    alike = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
    shown = [*alike, *(name for name in names if name not in alike)][:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f" and has {', '.join(shown)}{more}" if shown else " and is empty"


def _parse_csv(content: bytes, name: str) -> pd.DataFrame:
    """Read the cells of a CSV file as text without the blanks around it, empty ones as missing.

    With the csv module, because pandas makes an index of cells that the header has no name for, or drops them.
    """
    import numpy as np
    import pandas as pd

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = f"byte 0x{content[error.start]:02x} in line {line}"
        raise PriceSourceError(f"path={name!r} is not UTF-8 text ({byte}). Save it as CSV in UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows: list[list[Any]] = []
    try:
        for cells in reader:
            if len(cells) < 2 and not "".join(cells).strip():
                continue  # a blank line
            if not header:
                header = [cell.strip() for cell in cells]
                _check_separator(name, header)
            elif len(cells) != len(header):
                raise PriceSourceError(
                    f"path={name!r}: line {reader.line_num} has {len(cells)} cells, the header has {len(header)}. "
                    "Correct that line; a comma within a number doesn't belong there."
                )
            else:
                rows.append([cell.strip() or np.nan for cell in cells])
    except csv.Error as error:
        raise PriceSourceError(
            f"path={name!r}: line {reader.line_num} is no CSV: {error}. Correct that line."
        ) from error
    if not header:
        raise PriceSourceError(f"path={name!r} is empty. Give a file with a header and one row per day.")
    frame: pd.DataFrame = pd.DataFrame(rows, columns=pd.Index(header), dtype=object)
    return frame


def _check_separator(name: str, header: Sequence[str]) -> None:
    for separator, word in _SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise PriceSourceError(
                f"path={name!r}: its header {header[0][:60]!r} is separated by {word}. Save it with commas between the "
                "cells and a point before the decimals."
            )


def _parse_parquet(content: bytes, name: str) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not pandas.read_parquet: see `Store.read`.
        table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
        frame: pd.DataFrame = table.to_pandas(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        what = "is empty" if not content else f"is no Parquet file, or a damaged one ({error})"
        raise PriceSourceError(f"path={name!r} {what}. Write it again.") from error
    # A frame that was written with its dates as index comes back with them as index.
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    return frame


# ------------------------------------------------------------------------------------------------------------- yahoo


def _read_yahoo(symbol: str, start: str | None, end: str | None) -> tuple[pd.DataFrame, str]:
    first, last = (_check_day(name, day) for name, day in (("start", start), ("end", end)))
    if first and last and first >= last:
        raise refuse("end", end, f"give a day after start={start!r}.")
    try:
        import yfinance
    except ImportError as error:
        raise PriceSourceError(
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
    except Exception as error:
        raise _yahoo_failure(origin, error) from error
    finally:
        yfinance.config.debug.hide_exceptions = hidden
    if frame.empty:
        raise PriceSourceError(f"{origin}: there are no prices. Check the symbol at finance.yahoo.com, and the days.")
    frame = frame.rename_axis("Date").reset_index()
    # The exchange's own dates: its midnights are in its zone, and at one where summer time begins at midnight.
    frame["Date"] = frame["Date"].dt.tz_localize(None).dt.normalize()
    return frame, origin


def _check_day(name: str, day: str | None) -> dt.date | None:
    try:
        return None if day is None else dt.datetime.strptime(day, "%Y-%m-%d").date()
    except (TypeError, ValueError):
        raise refuse(name, day, "give a day as YYYY-MM-DD.") from None


def _yahoo_failure(origin: str, error: Exception) -> PriceSourceError:
    import yfinance.exceptions as theirs

    if isinstance(error, theirs.YFTickerMissingError) or _status(error) == 404:
        cure = "Check the symbol at finance.yahoo.com, and the days."
        return PriceSourceError(f"{origin}: there are no prices ({error}). {cure}")
    if isinstance(error, theirs.YFRateLimitError):
        said, cure = "Yahoo refuses more requests from here for now.", "Try again later, or use source 'files'."
    else:
        said = f"Yahoo can't be reached or answers nonsense ({type(error).__name__}: {error})."
        cure = "Check the network and its proxy, or use source 'files'."
    return PricesOutOfReachError(f"{origin}: {said} {cure}")


def _status(error: Exception) -> object:
    """Return the HTTP status in an error of curl_cffi or requests, whichever yfinance uses."""
    return getattr(getattr(error, "response", None), "status_code", None)
