"""What is asked of `/invocations`: JSON in MLflow's four forms or CSV, read into rows or refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from mlops_dagster.errors import MlopsError, refuse

MAX_ROWS = 10_000
_LARGEST = 3.4e38  # a forest compares numbers of 32 bits
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Unanswered(MlopsError):  # noqa: N818 - reads better where it is caught
    """A request that isn't answered; `status` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Kind(NamedTuple):
    """What the values of a column are."""

    type: Literal["number", "boolean", "text"] = "number"
    nullable: bool = False


def read_rows(
    body: bytes, content_type: str, columns: Sequence[str], kinds: Mapping[str, Kind] | None = None
) -> list[list[Any]]:
    r"""Read the rows that a model is asked about.

    Parameters
    ----------
    body : bytes
        As it was sent.
    content_type : str
        ``application/json`` or ``text/csv``, perhaps with ``charset=utf-8``.
    columns : sequence of str
        What the model asks for, in its order. Columns are found by name; others are left aside.
    kinds : mapping, optional
        What their values are. Not given: finite numbers.

    Raises
    ------
    Unanswered, ParameterError
        Saying which row and column has a wrong value, which column is missing, or what else is wrong.

    Examples
    --------
    >>> read_rows(b'{"dataframe_split": {"columns": ["b", "a"], "data": [[1, 2.5]]}}', "application/json", ["a", "b"])
    [[2.5, 1]]
    >>> read_rows(b'{"instances": [[1, NaN]]}', "application/json", ["a", "b"])
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: b=nan (float): in row 1, give a finite number below 3.4e+38.
    >>> kinds = {"town": Kind("text"), "age": Kind(nullable=True), "member": Kind("boolean")}
    >>> read_rows(b"age,member,town\n,true,7\n31,false,Bern", "text/csv", ["town", "age", "member"], kinds)
    [['7', None, True], ['Bern', 31.0, False]]
    """
    media_type, _, rest = (part.strip().lower() for part in content_type.partition(";"))
    if media_type not in ("application/json", "text/csv") or rest not in ("", "charset=utf-8"):
        raise Unanswered("Send application/json or text/csv, in UTF-8, and say which as Content-Type.", 415)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unanswered(f"The body isn't UTF-8 ({error.reason} at byte {error.start}).") from None
    known = {name: (kinds or {}).get(name, Kind()) for name in columns}
    names, rows = _csv(text, known) if media_type == "text/csv" else _json(text, columns)
    if not rows:
        raise Unanswered("There is no row; give one at least.")
    if len(rows) > MAX_ROWS:
        raise Unanswered(f"{len(rows):,} rows are too many; send up to {MAX_ROWS:,} at once.", 413)
    if missing := [name for name in columns if name not in names]:
        raise Unanswered(f"{', '.join(missing)}: missing. The model asks for {', '.join(columns)}.")
    if doubled := [name for name in columns if names.count(name) > 1]:
        raise Unanswered(f"{', '.join(doubled)}: given more than once.")
    places = [(name, names.index(name), kind) for name, kind in known.items()]
    return [_row(number, row, len(names), places) for number, row in enumerate(rows, 1)]


def _row(number: int, row: Any, length: int, places: Sequence[tuple[str, int, Kind]]) -> list[Any]:
    if not isinstance(row, list):
        raise refuse("row", row, f"row {number} has to be a list of {length} values.")
    if len(row) != length:
        raise Unanswered(f"Row {number} has {len(row)} values, and there are {length} columns.")
    for name, place, kind in places:
        value = row[place]
        if kind.nullable and (value is None or value != value):
            continue
        or_null = ", or null" if kind.nullable else ""
        if kind.type == "text" and not isinstance(value, str):
            raise refuse(name, value, f"in row {number}, give a text{or_null}.")
        if kind.type == "boolean" and not isinstance(value, bool):
            raise refuse(name, value, f"in row {number}, give true or false{or_null}.")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # Not a number (NaN) is between no two numbers.
        if kind.type == "number" and (not is_number or not -_LARGEST < value < _LARGEST):
            raise refuse(name, value, f"in row {number}, give a finite number below {_LARGEST:g}{or_null}.")
    return [row[place] for _, place, _ in places]


def _json(text: str, columns: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return names and rows of JSON in any of MLflow's forms."""
    try:
        asked = json.loads(text)
    except RecursionError:
        raise Unanswered("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise Unanswered(f"The body isn't JSON ({error}).") from None
    given = [form for form in _FORMS if isinstance(asked, dict) and form in asked]
    if len(given) != 1:
        raise Unanswered(f"Give a JSON object with exactly one of {', '.join(_FORMS)}.")
    (form,) = given
    data = asked[form]
    if form == "dataframe_split":
        names, rows = (data.get("columns"), data.get("data")) if isinstance(data, dict) else (None, None)
        if isinstance(names, list) and isinstance(rows, list):
            return names, rows
        raise Unanswered('Give dataframe_split as {"columns": [names], "data": [rows]}, each row a list.')
    if form == "inputs" and isinstance(data, dict) and all(isinstance(values, list) for values in data.values()):
        if len({len(values) for values in data.values()}) > 1:
            raise Unanswered("The columns in inputs have different numbers of values.")
        return list(data), [list(row) for row in zip(*data.values(), strict=True)]
    if isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        # Only what is asked for: records that each have names of their own would make a table of billions of cells.
        names = [name for name in columns if any(name in row for row in data)]
        # What a record lacks is missing in it, as a null is.
        return names, [[row.get(name) for name in names] for row in data]
    if isinstance(data, list) and form != "dataframe_records":
        return list(columns), data
    raise Unanswered(f"Give {form} as a list of rows, each an object of names and numbers.")


def _csv(text: str, known: Mapping[str, Kind]) -> tuple[list[Any], list[Any]]:
    """Return names and rows of CSV; a value that isn't of its kind stays a text, and is refused as one."""
    try:
        names, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (csv.Error, ValueError) as error:
        raise Unanswered(f"The body isn't CSV with a line of column names ({error}).") from None
    kinds = [known.get(name, Kind("text")) for name in names]
    return names, [
        # What a row has too many or too few of is said where its length is.
        [_typed(value, kind) for value, kind in zip(row, kinds, strict=True)] if len(row) == len(names) else row
        for row in rows
    ]


def _typed(text: str, kind: Kind) -> Any:
    if kind.nullable and not text:
        return None
    if kind.type == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return float(text) if kind.type == "number" else text
    except ValueError:
        return text
