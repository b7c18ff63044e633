"""What a table's columns hold, recognised from its cells: types, and how numbers, dates and missing values are written.

A guess is taken only if every cell of a column fits it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.modeling.typed_cells import by_form, number_form
from mlops_dagster.spec.model import Files

# Texts that mean 'no value' wherever they stand, and those that do only among numbers and dates.
_MISSING = ("NA", "N/A", "n/a", "#N/A", "nan", "NaN", "NULL", "null", "NaT", "?")
_MISSING_AMONG_NUMBERS = ("-", "--", ".", "None", "none", "na", "missing", "unknown", "k.A.")
_NUMBERS = ((".", None), (",", None), (",", "."), (".", ","), (".", "'"), (",", " "), (".", " "))
_DATES = (
    *("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%Y/%m/%d"),
    *("%Y.%m.%d", "%Y%m%d", "%Y-%m", "%m.%Y", "%m/%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y"),
    *("%d-%b-%y", "%b %Y"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{3}(\d{3})?)?)?(Z|[+-]\d\d:\d\d)?)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Recognised:
    """A table as it was recognised.

    Parameters
    ----------
    frame : DataFrame
        The columns, in the types of a contract: numbers as doubles, dates as datetimes, texts as objects.
    types : dict of str to str
        Each column's type, in a declaration's words.
    form : dict
        What has to be said of the files: decimal, thousands, dates, missing.
    notes : tuple of str
        What nobody can know, and how it was taken, a sentence each.
    """

    frame: pd.DataFrame
    types: dict[str, str]
    form: dict[str, Any]
    notes: tuple[str, ...]


def recognise(cells: pd.DataFrame, *, text: bool) -> Recognised:
    """Recognise the columns of a table.

    Parameters
    ----------
    cells : DataFrame
        The cells as they were found: texts of a CSV file, empty ones missing, or values of any kind.
    text : bool
        Whether it comes of a CSV file, in which a text may mean 'no value'.

    Examples
    --------
    >>> cells = pd.DataFrame({"price": ["1,5", "NA"], "day": ["31.12.2024", "01.01.2025"], "zip": ["01067", "80331"]})
    >>> found = recognise(cells, text=True)
    >>> found.types
    {'price': 'number', 'day': 'date', 'zip': 'text'}
    >>> found.form
    {'decimal': ',', 'dates': {'day': '%d.%m.%Y'}, 'missing': ['', 'NA']}
    """
    notes: list[str] = []
    missing = _missing_texts(cells) if text else []
    raw = cells.mask(cells.isin(missing)) if missing else cells
    decimal, thousands = _number_form(raw)
    plain = by_form(raw, dict.fromkeys(map(str, raw.columns), "number"), _files(decimal, thousands))
    types: dict[str, str] = {}
    dates: dict[str, str] = {}
    columns: dict[str, Any] = {}
    for name in map(str, raw.columns):
        types[name], columns[name] = _column(name, raw[name], plain[name], dates, notes)
    if thousands is None and decimal == ".":
        notes += _like_thousands(raw, types)
    form: dict[str, Any] = {}
    if decimal != ".":
        form["decimal"] = decimal
    if thousands is not None:
        form["thousands"] = thousands
    if dates:
        form["dates"] = dates
    if missing:
        form["missing"] = ["", *missing]
    return Recognised(pd.DataFrame(columns, index=raw.index), types, form, tuple(notes))


def _files(decimal: Any, thousands: Any) -> Files:
    return Files(path="it.csv", decimal=decimal, thousands=thousands)


def _texts(cells: pd.Series[Any]) -> list[str] | None:
    """Return the different texts of a column that holds nothing else; None of any other."""
    values = list(dict.fromkeys(cells.dropna().tolist())) if cells.dtype == object or _is_text(cells) else []
    return values if values and all(isinstance(one, str) for one in values) else None


def _is_text(cells: pd.Series[Any]) -> bool:
    return isinstance(cells.dtype, pd.StringDtype | pd.CategoricalDtype)


# ------------------------------------------------------------------------------------------------------ missing values


def _missing_texts(cells: pd.DataFrame) -> list[str]:
    found: list[str] = []
    for name in cells.columns:
        texts = _texts(cells[name]) or []
        found += [one for one in _MISSING if one in texts]
        odd = [one for one in _MISSING_AMONG_NUMBERS if one in texts]
        others = [one for one in texts if one not in odd and one not in _MISSING]
        if odd and others and (_numeric(others) or _date_form(others, []) is not None):
            found += odd
    return list(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------------------------- numbers


def _numeric(texts: Sequence[str]) -> bool:
    return any(_fits(texts, decimal, thousands) for decimal, thousands in _NUMBERS)


def _fits(texts: Sequence[str], decimal: str, thousands: str | None) -> bool:
    form = number_form(decimal, thousands)
    return all(form.fullmatch(one) for one in texts)


def _number_form(cells: pd.DataFrame) -> tuple[str, str | None]:
    """Return how most columns write numbers, of several ways the plainest."""
    columns = [texts for name in cells.columns if (texts := _texts(cells[name])) is not None]
    columns = [texts for texts in columns if any(one[-1:].isdigit() or one[:1].isdigit() for one in texts)]
    counts = [sum(_fits(texts, *form) for texts in columns) for form in _NUMBERS]
    return _NUMBERS[counts.index(max(counts))]


def _like_thousands(raw: pd.DataFrame, types: dict[str, str]) -> Iterator[str]:
    for name in map(str, raw.columns):
        texts = _texts(raw[name]) if types[name] == "number" else None
        if texts and len(texts) > 2 and all(re.fullmatch(r"\d{1,3}\.\d{3}", one) for one in texts):
            yield (
                f"{name}: {texts[0]} is read as {float(texts[0]):g}. If it means thousands, say "
                "data.files.thousands: '.' and decimal: ','."
            )


# ------------------------------------------------------------------------------------------------------------- columns


def _column(
    name: str, raw: pd.Series[Any], plain: pd.Series[Any], dates: dict[str, str], notes: list[str]
) -> tuple[str, Any]:
    kind = raw.dtype.kind if isinstance(raw.dtype, np.dtype) else ""
    texts = _texts(raw)
    if texts is None:
        return _typed(raw, kind)
    numbers = [one for one in plain.dropna().unique() if isinstance(one, str)]
    if len(numbers) == plain.nunique() and all(_NUMBER.fullmatch(one) for one in numbers):
        days = _digits_are_days(name, texts)
        if not days and not any(re.match(r"[+-]?0\d", one) for one in numbers):
            values = pd.to_numeric(plain, errors="coerce").astype(np.float64)
            if (values.abs().max() or 0) < 2**53:
                return ("integer" if _whole(values) else "number"), values
        if not days:
            return "text", raw.astype(object)  # what begins with 0, or is too long, is a name
    if {one.lower() for one in texts} in ({"true", "false"}, {"true"}, {"false"}):
        return "boolean", raw.map(lambda cell: cell.lower() == "true" if isinstance(cell, str) else np.nan)
    doubts: list[str] = []
    form = "%Y%m%d" if _digits_are_days(name, texts) else _date_form(texts, doubts, raw, name)
    if form is None:
        return "text", raw.astype(object)
    notes += doubts
    if form:
        dates[name] = form
    return "date", raw.map(lambda cell: _moment(cell, form), na_action="ignore").astype("datetime64[us]")


def _typed(raw: pd.Series[Any], kind: str) -> tuple[str, Any]:
    values = raw.dropna()
    if kind == "M" or isinstance(raw.dtype, pd.DatetimeTZDtype):
        return "date", raw if kind == "M" else raw.dt.tz_convert("UTC").dt.tz_localize(None)
    if len(values) and all(isinstance(one, dt.date) for one in values):
        return "date", pd.to_datetime(raw)
    if len(values) and all(isinstance(one, bool | np.bool_) for one in values):
        return "boolean", raw
    try:
        numbers = raw.astype(np.float64)
    except (TypeError, ValueError):
        return "text", raw.astype(object)
    if not len(values):
        return "text", raw.astype(object)
    return ("integer" if _whole(numbers) else "number"), numbers


def _whole(values: pd.Series[Any]) -> bool:
    given = values.dropna().to_numpy()
    return bool(len(given)) and bool(np.isfinite(given).all()) and bool((given == np.floor(given)).all())


# --------------------------------------------------------------------------------------------------------------- dates


def _digits_are_days(name: str, texts: Sequence[str]) -> bool:
    """Whether numbers of eight digits are days: all are days of these two centuries, and the column says so."""
    if not re.search(r"date|day|datum|tag|time", name, re.IGNORECASE) or not all(len(one) == 8 for one in texts):
        return False
    return all(_reads(one, "%Y%m%d") and "1900" <= one[:4] <= "2099" for one in texts)


def _date_form(
    texts: Sequence[str], notes: list[str], column: pd.Series[Any] | None = None, name: str = ""
) -> str | None:
    """Return how all texts are dates: "" for ISO, else a format; None if they are none."""
    if all(_ISO.fullmatch(one) and _reads(one, "") for one in texts):
        return ""
    if not any(one.isdigit() for one in texts[0]) or len(texts[0]) > 40:
        return None
    forms = [day + time for day in _DATES for time in _TIMES if _reads(texts[0], day + time)]
    fitting = [form for form in forms if form != "%Y%m%d" and all(_reads(one, form) for one in texts)]
    if not fitting:
        return None
    by_order = [form for form in fitting if column is not None and _ascends(column, form)]
    form = by_order[0] if len(by_order) == 1 else fitting[0]
    if len(fitting) > 1 and name:
        why = ", since the rows are in its order" if len(by_order) == 1 else ""
        notes.append(
            f"{name}: {texts[0]!r} may be written as {' or '.join(fitting)}; it is read as {form}{why}. "
            "If that is wrong, correct data.files.dates."
        )
    return form


def _reads(text: str, form: str) -> bool:
    try:
        _moment(text, form)
    except ValueError:
        return False
    return True


def _moment(text: str, form: str) -> dt.datetime:
    if form:
        return dt.datetime.strptime(text, form)
    moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo is None else moment.astimezone(dt.timezone.utc).replace(tzinfo=None)


def _ascends(column: pd.Series[Any], form: str) -> bool:
    moments = [dt.datetime.strptime(one, form) for one in column.dropna()]
    return moments == sorted(moments)
