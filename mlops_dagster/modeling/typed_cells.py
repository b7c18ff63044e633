"""Reading cells, which may be texts, numbers or dates of any kind, as the type that a contract says: strictly."""

from __future__ import annotations

import datetime as dt
import decimal
import numbers
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.errors import printable
from mlops_dagster.spec.model import Files

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_TRUE, _FALSE = frozenset({"true", "yes", "t", "y", "1"}), frozenset({"false", "no", "f", "n", "0"})
_REMOVE = "correct it at the source, or remove the row"
# Whole numbers that a double holds exactly: what a column of integers with missing values is kept as.
_EXACT = 2**53


@dataclass(frozen=True)
class Unread:
    """A cell that isn't written in the declared form of numbers or dates."""

    text: str
    problem: str
    cure: str

    def __str__(self) -> str:
        return self.text


def by_form(frame: pd.DataFrame, types: Mapping[str, str], files: Files) -> pd.DataFrame:
    """Read the texts of a file that are written in a declared form: numbers with a comma, dates as ``%d.%m.%Y``.

    What isn't written so is marked, for the contract to name.

    Examples
    --------
    >>> frame = pd.DataFrame({"price": ["1.234,5", "1.5"], "day": ["31.12.2024", "2024"]})
    >>> form = Files(path="a.csv", decimal=",", thousands=".", dates={"day": "%d.%m.%Y"})
    >>> [str(one) for one in by_form(frame, {"price": "number", "day": "date"}, form).loc[0]]
    ['1234.5', '2024-12-31 00:00:00']
    """
    frame = frame.copy(deep=False)
    for name, written in files.dates.items():
        if name in frame.columns:
            frame[name] = _mapped(frame[name], partial(_date_by_form, form=written))
    if files.decimal != "." or files.thousands is not None:
        form = number_form(files.decimal, files.thousands)
        for name in frame.columns:
            if types.get(str(name)) in ("number", "integer"):
                frame[name] = _mapped(
                    frame[name], lambda cell: _number_by_form(cell, form, files.decimal, files.thousands)
                )
    return frame


def _mapped(cells: pd.Series[Any], read: Callable[[Any], object]) -> pd.Series[Any]:
    mapped: pd.Series[Any] = pd.Series([read(cell) for cell in cells.astype(object)], index=cells.index, dtype=object)
    return mapped


def number_form(decimal_: str, thousands: str | None) -> re.Pattern[str]:
    """Return the form of numbers with such a decimal point, and such a mark between thousands."""
    whole = r"\d+" if thousands is None else rf"(\d{{1,3}}({re.escape(thousands)}\d{{3}})+|\d+)"
    point = re.escape(decimal_)
    return re.compile(rf"[+-]?({whole}({point}\d*)?|{point}\d+)(e[+-]?\d+)?", re.IGNORECASE)


def _number_by_form(cell: object, form: re.Pattern[str], decimal_: str, thousands: str | None) -> object:
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\u00a0", " ").replace("\u202f", " ").replace("\u2019", "'") if thousands else cell
    if form.fullmatch(text) is None:
        said = f"decimal={decimal_!r}" + (f" and thousands={thousands!r}" if thousands else "")
        return Unread(cell, f"is not a number with {said}", "correct it, or what data.files says of numbers or missing")
    return text.replace(thousands or decimal_, "" if thousands else ".").replace(decimal_, ".")


def _date_by_form(cell: object, form: str) -> object:
    if not isinstance(cell, str):
        return cell
    try:
        return dt.datetime.strptime(cell, form)
    except ValueError:
        return Unread(cell, f"is not written as {form}", "correct it, or what data.files says of dates or missing")


# ------------------------------------------------------------------------------------------------------------ types

Problems = dict[int, tuple[str, str]]


class _Bad(Exception):  # noqa: N818 a cell, not an error
    def __init__(self, problem: str, cure: str) -> None:
        self.said = (problem, cure)


def _each(cells: pd.Series[Any], read: Callable[[Any], Any]) -> tuple[list[Any], Problems]:
    """Read cells one by one, equal ones once; None where one is missing or can't be read."""
    problems: Problems = {}
    known: dict[tuple[type, Hashable], Any] = {}
    values: list[Any] = []
    for row, cell in enumerate(cells.astype(object)):
        value = None
        if not _is_missing(cell):
            token = (type(cell), cell) if isinstance(cell, Hashable) else None
            try:
                if token is None:
                    value = read(cell)
                else:
                    if token not in known:
                        known[token] = _outcome(read, cell)
                    value = known[token]
                    if isinstance(value, _Bad):
                        raise value
            except _Bad as bad:
                value, problems[row] = None, bad.said
        values.append(value)
    return values, problems


def _outcome(read: Callable[[Any], Any], cell: Any) -> Any:
    try:
        if isinstance(cell, Unread):
            return _Bad(cell.problem, cell.cure)
        return read(cell)
    except _Bad as bad:
        return bad


def _is_missing(cell: object) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float | np.floating) and cell != cell)


def _said_missing(cell: object) -> str:
    looks = isinstance(cell, str) and cell.strip().lower() in {"", "na", "n/a", "nan", "nat", "null", "none", "?", "-"}
    return f"{_REMOVE}; if it means 'no value', add {str(cell)!r} to data.files.missing" if looks else ""


def _plain_numpy(cells: pd.Series[Any], kinds: str) -> bool:
    return isinstance(cells.dtype, np.dtype) and cells.dtype.kind in kinds


def _read_numbers(cells: pd.Series[Any]) -> tuple[Any, Problems]:
    if _plain_numpy(cells, "iuf"):
        values: Any = cells.to_numpy(dtype=np.float64)
        problems: Problems = {}
    else:
        read, problems = _each(cells, _number)
        values = np.array(read, dtype=np.float64)
    for row in np.flatnonzero(np.isinf(values)):
        problems[int(row)] = ("is infinite", _REMOVE)
    return values, problems


def _number(cell: Any) -> float:
    if isinstance(cell, str) and (match := _NUMBER.fullmatch(cell.strip())):
        return float(match[0])
    if isinstance(cell, numbers.Real | decimal.Decimal) and not isinstance(cell, bool | np.bool_):
        return float(cell)
    raise _Bad("is not a number", _said_missing(cell) or "write it as a plain number such as 1234.5")


def _read_integers(cells: pd.Series[Any]) -> tuple[Any, Problems]:
    if _plain_numpy(cells, "i"):
        return cells.to_numpy(dtype=np.int64), {}
    values, problems = _each(cells, _integer)
    if not problems and all(value is not None for value in values):
        return np.array(values, dtype=np.int64), problems
    for row, value in enumerate(values):
        if value is not None and abs(value) > _EXACT:
            problems[row] = ("is too large for an integer beside missing values", "declare the column as text")
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64), problems


def _integer(cell: Any) -> int:
    text = cell.strip() if isinstance(cell, str) else ""
    if re.fullmatch(r"[+-]?\d{1,30}", text):
        whole = int(text)
    else:
        try:
            value = _number(cell)
        except _Bad:
            said = _said_missing(cell) or "write it as a whole number such as 12"
            raise _Bad("is not an integer", said) from None
        if not value.is_integer():
            raise _Bad("is not an integer", "write it as a whole number, or declare the column as number")
        whole = int(value) if isinstance(cell, str) else int(cell)
    if not -(2**63) <= whole < 2**63:
        raise _Bad("is too large for an integer", "declare the column as text, or as number")
    return whole


def _read_booleans(cells: pd.Series[Any]) -> tuple[Any, Problems]:
    if _plain_numpy(cells, "b"):
        return cells.to_numpy(dtype=bool), {}
    values, problems = _each(cells, _boolean)
    return np.array([np.nan if value is None else float(value) for value in values]), problems


def _boolean(cell: Any) -> bool:
    if isinstance(cell, bool | np.bool_):
        return bool(cell)
    if isinstance(cell, numbers.Real) and cell in (0, 1):
        return bool(cell)
    text = str(cell).strip().lower()
    if isinstance(cell, str) and text in _TRUE | _FALSE:
        return text in _TRUE
    raise _Bad("is neither true nor false", _said_missing(cell) or "write true or false, yes or no, 1 or 0")


def _read_texts(cells: pd.Series[Any]) -> tuple[Any, Problems]:
    values, problems = _each(cells, _text)
    texts = np.empty(len(values), dtype=object)
    texts[:] = values
    return texts, problems


def _text(cell: Any) -> str:
    if isinstance(cell, str):
        if printable(cell) != cell:
            raise _Bad("has characters that are no Unicode", "correct the encoding")
        return cell
    if isinstance(cell, numbers.Integral) and not isinstance(cell, bool | np.bool_):
        return str(int(cell))  # a workbook makes a number of the text 00123's like
    raise _Bad(f"is no text but a {type(cell).__name__}", "declare the column's type as what it is")


def _read_dates(cells: pd.Series[Any]) -> tuple[Any, Problems]:
    if _plain_numpy(cells, "M"):
        return cells.to_numpy(dtype="datetime64[us]"), {}
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        return cells.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]"), {}
    values, problems = _each(cells, _date)
    zoned = any(value is not None and value.tzinfo is not None for value in values)
    for row, value in enumerate(values if zoned else []):
        if value is not None and value.tzinfo is not None:
            values[row] = value.astimezone(dt.timezone.utc).replace(tzinfo=None)
        elif value is not None:
            problems[row] = ("has no time zone, but other rows have one", "give all rows one, or none")
    return np.array([np.datetime64("NaT") if one is None else one for one in values], dtype="datetime64[us]"), problems


def read_date(cell: object) -> dt.datetime:
    """Return the moment that a cell says; a text has to be an ISO date.

    Raises
    ------
    ValueError
        If it says none.
    """
    if isinstance(cell, np.datetime64):
        cell = pd.Timestamp(cell)
    if isinstance(cell, pd.Timestamp):
        return cell.to_pydatetime(warn=False)
    if isinstance(cell, dt.datetime):
        return cell
    if isinstance(cell, dt.date):
        return dt.datetime.combine(cell, dt.time())
    if isinstance(cell, str):
        text = cell.strip()
        # ISO dates only: of 03/04/2020 nobody can say whether it is in March or in April.
        if text[4:5] == text[7:8] == "-":
            return dt.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1] in "zZ" else text)
    raise ValueError(cell)


def _date(cell: Any) -> dt.datetime:
    try:
        return read_date(cell)
    except ValueError:
        pass
    cure = "write it as YYYY-MM-DD, or say how it is written: data.files.dates"
    raise _Bad("is not a date", _said_missing(cell) or cure)


READ: Mapping[str, Callable[[pd.Series[Any]], tuple[Any, Problems]]] = {
    "integer": _read_integers,
    "number": _read_numbers,
    "boolean": _read_booleans,
    "text": _read_texts,
    "date": _read_dates,
}
