"""The contract of a table: what each column has to hold. A bad cell is shown, never filled in."""

from __future__ import annotations

import datetime as dt
import decimal
import difflib
import numbers
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.errors import MlopsError, printable, refuse
from mlops_dagster.spec.functions import load_function
from mlops_dagster.spec.model import Column, Declaration, Files

SHOWN = 10
"""Violations that a message lists."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_TRUE, _FALSE = frozenset({"true", "yes", "t", "y", "1"}), frozenset({"false", "no", "f", "n", "0"})
_REMOVE = "correct it at the source, or remove the row"
# Whole numbers that a double holds exactly: what a column of integers with missing values is kept as.
_EXACT = 2**53


@dataclass(frozen=True)
class Violation:
    """One rule that the rows break: where first, and what to do about it.

    Parameters
    ----------
    column : str
        The column, or several with commas between them.
    problem, cure : str
        What is wrong and what to do, as halves of one sentence.
    row : str, optional
        The first row that breaks it, in words. None: it isn't about single rows.
    value : str, optional
        Its cell, as it was given.
    rows : int
        How many rows break it.
    """

    column: str
    problem: str
    cure: str
    row: str | None = None
    value: str | None = None
    rows: int = 1

    def __str__(self) -> str:
        where = self.column
        if self.row is not None:
            more = f" and {self.rows - 1:,} more" if self.rows > 1 else ""
            where = f"{self.column}={self.value} ({self.row}{more})"
        return f"{where}: {self.problem}; {self.cure}."


class ContractError(MlopsError, ValueError):
    """The rows break the contract. The message lists the first violations, `violations` holds all of them."""

    exit_status = 2

    def __init__(self, source: str, violations: Sequence[Violation]) -> None:
        super().__init__(source, tuple(violations))  # both as args, so that the error can be pickled
        self.source = source
        self.violations = tuple(violations)

    def __str__(self) -> str:
        lines = "".join(f"\n  - {violation}" for violation in self.violations[:SHOWN])
        more = len(self.violations) - SHOWN
        lines += f"\n  - and {more} more" if more > 0 else ""
        count = "one violation" if len(self.violations) == 1 else f"{len(self.violations)} violations"
        return printable(f"{self.source}: the rows can't be used, {count} of the contract:{lines}")


@dataclass(frozen=True)
class Unread:
    """A cell that isn't written in the declared form of numbers or dates."""

    text: str
    problem: str
    cure: str

    def __str__(self) -> str:
        return self.text


# ------------------------------------------------------------------------------------------------------------ checking


def check_contract(declaration: Declaration, frame: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Check rows against a model's contract, and return them in its one form.

    Parameters
    ----------
    declaration : Declaration
        Whose contract, key, time and group.
    frame : DataFrame
        The rows as they were found; the index says which row of the source each is, counted from 0.
    source : str
        Where they come from, in words, for the messages.

    Returns
    -------
    DataFrame
        The contract's columns in its order, others are left out (``attrs["left_out"]`` names them); rows numbered from
        0, sorted by time if there is one. Integers are ``int64``, or ``float64`` where values may be missing; numbers
        are ``float64``; booleans are ``bool``, or ``float64`` (1, 0, NaN) where values may be missing; texts are
        objects, None where missing; dates are ``datetime64[us]``, those with a time zone in UTC.

    Raises
    ------
    ContractError
        With every violation: column, row, value, cure.
    ParameterError
        If the contract itself can't be used.
    """
    schema = _schema_of(declaration)
    rules = _rules_of(declaration)
    named = {str(name): name for name in frame.columns}
    violations = [_missing_column(name, list(named)) for name in rules if name not in named]
    if frame.empty:
        violations.append(Violation("rows", "there are none", "give at least one"))
    where = _Where(frame, declaration.key)
    columns: dict[str, Any] = {}
    for name, rule in rules.items():
        if name in named:
            columns[name], found = _check_column(name, rule, frame[named[name]].reset_index(drop=True), where)
            violations += found
    checked: pd.DataFrame = pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))
    broken = {violation.column for violation in violations}
    violations += _check_identity(declaration, checked, where, broken)
    if schema is not None and not violations:
        violations += _broken_by_schema(schema, checked, where)
    if violations:
        raise ContractError(source, violations)
    if declaration.time is not None and declaration.time in checked:
        checked = checked.sort_values(declaration.time, kind="stable", ignore_index=True)
    checked.attrs["left_out"] = [name for name in named if name not in rules]
    return checked


def types_of(declaration: Declaration) -> dict[str, str]:
    """Return the type that each column of a contract has, in a declaration's words."""
    return {name: rule.type for name, rule in _rules_of(declaration).items()}


def by_form(frame: pd.DataFrame, types: Mapping[str, str], files: Files) -> pd.DataFrame:
    """Read the texts of a file that are written in a declared form: numbers with a comma, dates as ``%d.%m.%Y``.

    What isn't written so is marked, for :func:`check_contract` to name.

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
        form = _number_form(files.decimal, files.thousands)
        for name in frame.columns:
            if types.get(str(name)) in ("number", "integer"):
                frame[name] = _mapped(
                    frame[name], lambda cell: _number_by_form(cell, form, files.decimal, files.thousands)
                )
    return frame


def _mapped(cells: pd.Series[Any], read: Callable[[Any], object]) -> pd.Series[Any]:
    mapped: pd.Series[Any] = pd.Series([read(cell) for cell in cells.astype(object)], index=cells.index, dtype=object)
    return mapped


def _number_form(decimal_: str, thousands: str | None) -> re.Pattern[str]:
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


# ------------------------------------------------------------------------------------------------------- a contract's


def _rules_of(declaration: Declaration) -> Mapping[str, Column]:
    """Return what is said of each column; of a pandera schema the types, its checks run afterwards."""
    if isinstance(declaration.contract, Mapping):
        return declaration.contract
    schema = _schema_of(declaration)
    return {str(name): Column(type=_type_of(one), nullable=bool(one.nullable)) for name, one in schema.columns.items()}


def _schema_of(declaration: Declaration) -> Any:
    if isinstance(declaration.contract, Mapping):
        return None
    import pandera.pandas as pa

    found = load_function(declaration, declaration.contract)
    if isinstance(found, type) and issubclass(found, pa.DataFrameModel):
        found = found.to_schema()
    if not isinstance(found, pa.DataFrameSchema):
        cure = f"it is a {type(found).__name__}; name a pandera DataFrameSchema or DataFrameModel."
        raise refuse("contract", declaration.contract, cure)
    regex = [str(name) for name, one in found.columns.items() if getattr(one, "regex", False)]
    if regex or not found.columns:
        raise refuse("contract", declaration.contract, "name each column of the schema; patterns aren't followed.")
    return found


def _type_of(column: Any) -> Any:
    kind = str(column.dtype).lower()
    for begins, type_ in (("int", "integer"), ("uint", "integer"), ("float", "number"), ("bool", "boolean")):
        if kind.startswith(begins):
            return type_
    return "date" if kind.startswith(("datetime", "date")) else "text"


def _broken_by_schema(schema: Any, checked: pd.DataFrame, where: _Where) -> list[Violation]:
    import pandera.pandas as pa
    from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

    # The types were checked by ours: pandera's own would refuse microseconds, and doubles for missing integers.
    columns = {name: one for name, one in schema.columns.items() if name in checked}
    plain = pa.DataFrameSchema(
        {
            name: pa.Column(None, one.checks, nullable=True, unique=one.unique, report_duplicates="exclude_first")
            for name, one in columns.items()
        },
        checks=schema.checks,
        unique=schema.unique,
    )
    try:
        plain.validate(checked, lazy=True)
    except SchemaErrors as errors:
        found = []
        for error in errors.schema_errors:
            column = str(error.column_name) if error.column_name in checked else ""
            check = error.check
            problem = str(getattr(check, "error", None) or getattr(check, "name", None) or check)
            problem = f"breaks the rule {problem}"
            if error.reason_code == SchemaErrorReason.SERIES_CONTAINS_DUPLICATES:
                problem = "was there before"
            if error.reason_code == SchemaErrorReason.CHECK_ERROR or not isinstance(error.failure_cases, pd.DataFrame):
                found.append(Violation(column or "schema", f"can't be checked ({error})", "correct the schema"))
                continue
            cure = str(getattr(check, "description", None) or _REMOVE)
            index = error.failure_cases["index"].dropna()
            rows = sorted(set(index.astype(int))) if len(index) else []
            if rows and column:
                found.append(where.violation(column, checked[column], rows, problem, cure))
            else:
                row = f"row {where.number(rows[0])}" if rows else None
                value = "..." if rows else None
                found.append(Violation(column or "schema", problem, cure, row, value, max(len(rows), 1)))
        return found
    except SchemaError as error:
        return [Violation("schema", str(error), "correct the schema")]
    return []


# ------------------------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True)
class _Where:
    """Says which row of the source one is: its number from 1, and its key."""

    frame: pd.DataFrame
    key: Sequence[str]

    def number(self, at: int) -> str:
        index = self.frame.index
        row = int(index[at]) if index.dtype.kind in "iu" else at
        return f"{row + 1:,}"

    def row(self, at: int) -> str:
        said = [f"{name}={self.frame[name].iloc[at]}" for name in self.key if name in self.frame.columns]
        return f"row {self.number(at)}" + (f", {', '.join(said)}" if said else "")

    def violation(self, column: str, cells: pd.Series[Any], rows: Sequence[int], problem: str, cure: str) -> Violation:
        at = min(rows)
        return Violation(column, problem, cure, self.row(at), _shown(cells.iloc[at]), len(rows))


def _shown(cell: Any) -> str:
    if isinstance(cell, Unread):
        cell = cell.text
    if cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and np.isnan(cell)):
        return "(nothing)"
    value = str(cell) if isinstance(cell, pd.Timestamp | dt.date) else repr(getattr(cell, "item", lambda: cell)())
    return value if len(value) <= 40 else value[:40] + "..."


def _missing_column(name: str, found: list[str]) -> Violation:
    meant = difflib.get_close_matches(name, found, n=1)
    alike = [one for one in found if one.lower() == name.lower()]
    listed = ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
    said = f"did you mean {(alike or meant)[0]!r}?" if alike or meant else f"there are {listed or 'none'}"
    return Violation(name, "the column is missing", f"add it, or correct its name: {said.rstrip('?')}")


def _check_column(name: str, rule: Column, cells: pd.Series[Any], where: _Where) -> tuple[Any, list[Violation]]:
    values, problems = _READ[rule.type](cells)
    found = []
    by_problem: dict[tuple[str, str], list[int]] = {}
    for row, said in problems.items():
        by_problem.setdefault(said, []).append(row)
    for said, rows in by_problem.items():
        found.append(where.violation(name, cells, rows, *said))
    series: pd.Series[Any] = pd.Series(values)
    missing = series.isna().to_numpy()
    unread = np.zeros(len(series), dtype=bool)
    unread[list(problems)] = True
    read = ~missing & ~unread

    def breaks(rows: Any, problem: str, cure: str) -> None:
        if len(at := np.flatnonzero(rows)):
            found.append(where.violation(name, cells, at.tolist(), problem, cure))

    if not rule.nullable:
        breaks(missing & ~unread, "is missing", f"{_REMOVE}, or say nullable: true")
    for bound, what, beyond in (
        (rule.minimum, "is below the minimum", series.lt),
        (rule.maximum, "is above the maximum", series.gt),
    ):
        if bound is not None:
            limit = _bound(name, rule, bound)
            shown = limit.date() if isinstance(limit, pd.Timestamp) and limit == limit.normalize() else bound
            breaks(read & beyond(limit).to_numpy(dtype=bool), f"{what} {shown}", f"{_REMOVE}, or widen the contract")
    if rule.allowed is not None:
        allowed = _allowed(name, rule)
        few = ", ".join(map(str, rule.allowed[:10])) + (" ..." if len(rule.allowed) > 10 else "")
        breaks(read & ~series.isin(allowed).to_numpy(), f"is none of {few}", f"{_REMOVE}, or add it to allowed")
    if rule.unique:
        breaks(read & series.duplicated().to_numpy(), "was there before", "keep one row of each value")
    if rule.nullable and rule.type in ("integer", "boolean"):
        series = series.astype(np.float64)
    elif not found and rule.type == "integer":
        series = series.astype(np.int64)
    elif not found and rule.type == "boolean":
        series = series.astype(bool)
    return series, found


def _bound(name: str, rule: Column, bound: float | str) -> Any:
    if rule.type == "date":
        try:
            return pd.Timestamp(dt.datetime.fromisoformat(str(bound)))
        except ValueError:
            raise refuse(f"contract.{name}", bound, "give a date as YYYY-MM-DD.") from None
    if rule.type in ("integer", "number") and not isinstance(bound, str):
        return bound
    raise refuse(f"contract.{name}", bound, f"a bound of type {rule.type} isn't one; leave it out, or give a number.")


def _allowed(name: str, rule: Column) -> list[Any]:
    said: pd.Series[Any] = pd.Series(rule.allowed, dtype=object)
    if rule.type == "text":
        said = said.map(str)
    values, problems = _READ[rule.type](said)
    if problems:
        value = said[min(problems)]
        raise refuse(f"contract.{name}.allowed", value, f"the column's type is {rule.type}; give values of that type.")
    return list(values)


def _check_identity(
    declaration: Declaration, checked: pd.DataFrame, where: _Where, broken: set[str]
) -> list[Violation]:
    """Check key, time and group: none may be missing, and no key may come twice."""
    found = []
    time, group = declaration.time, declaration.group
    for name in dict.fromkeys([*declaration.key, *(one for one in (time, group) if one is not None)]):
        if name in checked and name not in broken and (missing := checked[name].isna()).any():
            what = "key" if name in declaration.key else "time" if name == time else "group"
            rows = np.flatnonzero(missing).tolist()
            found.append(where.violation(name, checked[name], rows, f"is missing, but it is the {what}", _REMOVE))
    key = [name for name in declaration.key if name in checked]
    if key and len(key) == len(declaration.key) and not broken & set(key):
        rows = np.flatnonzero(checked.duplicated(key)).tolist()
        if rows:
            first = checked.iloc[rows[0]]
            value = ", ".join(_shown(first[name]) for name in key)
            said = Violation(
                ", ".join(key),
                "the key was there before",
                "keep one row of each, or add columns to the key",
                f"row {where.number(rows[0])}",
                value,
                len(rows),
            )
            found.append(said)
    return found


# --------------------------------------------------------------------------------------------------------------- cells

_Problems = dict[int, tuple[str, str]]


class _Bad(Exception):  # noqa: N818 a cell, not an error
    def __init__(self, problem: str, cure: str) -> None:
        self.said = (problem, cure)


def _each(cells: pd.Series[Any], read: Callable[[Any], Any]) -> tuple[list[Any], _Problems]:
    """Read cells one by one, equal ones once; None where one is missing or can't be read."""
    problems: _Problems = {}
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


def _read_numbers(cells: pd.Series[Any]) -> tuple[Any, _Problems]:
    if _plain_numpy(cells, "iuf"):
        values: Any = cells.to_numpy(dtype=np.float64)
        problems: _Problems = {}
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


def _read_integers(cells: pd.Series[Any]) -> tuple[Any, _Problems]:
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


def _read_booleans(cells: pd.Series[Any]) -> tuple[Any, _Problems]:
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


def _read_texts(cells: pd.Series[Any]) -> tuple[Any, _Problems]:
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


def _read_dates(cells: pd.Series[Any]) -> tuple[Any, _Problems]:
    if _plain_numpy(cells, "M"):
        return cells.to_numpy(dtype="datetime64[us]"), {}
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        return cells.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]"), {}
    values, problems = _each(cells, _date)
    aware = [value is not None and value.tzinfo is not None for value in values]
    for row, value in enumerate(values):
        if value is not None and aware[row]:
            values[row] = value.astimezone(dt.timezone.utc).replace(tzinfo=None)
        elif value is not None and any(aware):
            problems[row] = ("has no time zone, but other rows have one", "give all rows one, or none")
    return np.array([np.datetime64("NaT") if one is None else one for one in values], dtype="datetime64[us]"), problems


def _date(cell: Any) -> dt.datetime:
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
            try:
                return dt.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1] in "zZ" else text)
            except ValueError:
                pass
    cure = "write it as YYYY-MM-DD, or say how it is written: data.files.dates"
    raise _Bad("is not a date", _said_missing(cell) or cure)


_READ: Mapping[str, Callable[[pd.Series[Any]], tuple[Any, _Problems]]] = {
    "integer": _read_integers,
    "number": _read_numbers,
    "boolean": _read_booleans,
    "text": _read_texts,
    "date": _read_dates,
}
