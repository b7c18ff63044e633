"""Reading the cells of a price table, which may be texts, numbers or dates of any kind, strictly."""

from __future__ import annotations

import decimal
import math
import numbers
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.modeling.typed_cells import read_date

UNREADABLE = {
    "is not a number": "write it as a plain number such as 1234.5",
    "is not a date": "write it as YYYY-MM-DD",
    "has a time zone": "give the trading day itself: convert to the exchange's zone first, then drop the zone (pandas: "
    "Date.dt.tz_convert('America/New_York').dt.tz_localize(None))",
}
"""What can be wrong with a cell, and the cure."""


def read_numbers(cells: pd.Series[Any]) -> tuple[Any, dict[int, str]]:
    """Read cells as doubles; return them with the problem of each row that can't be read (NaN there)."""
    if isinstance(cells.dtype, np.dtype) and cells.dtype.kind in "iuf":
        return cells.to_numpy(dtype=np.float64, copy=True), {}
    problems: dict[int, str] = {}
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells.astype(object)):
        if _is_missing(cell):
            continue
        try:
            values[row] = _read_number(cell)
        except (ValueError, OverflowError):
            problems[row] = "is not a number"
    return values, problems


def _read_number(cell: object) -> float:
    if isinstance(cell, str):
        if "_" in cell:  # Python reads 1_000, no price file means it
            raise ValueError(cell)
        # float() and not pandas.to_numeric, which is off by one unit in the last place for one text in six.
        return float(cell)
    if isinstance(cell, numbers.Real | decimal.Decimal) and not isinstance(cell, bool | np.bool_):
        return float(cell)
    raise ValueError(cell)


def read_dates(cells: pd.Series[Any]) -> tuple[Any, dict[int, str]]:
    """Read cells as datetimes; return them with the problem of each row that can't be read (NaT there)."""
    if isinstance(cells.dtype, np.dtype) and cells.dtype.kind == "M":
        return cells.to_numpy(dtype="datetime64[us]", copy=True), {}
    problems: dict[int, str] = {}
    values = np.full(len(cells), np.datetime64("NaT"), dtype="datetime64[us]")
    for row, cell in enumerate(cells.astype(object)):
        if _is_missing(cell):
            continue
        try:
            moment = read_date(cell)
        except ValueError:
            problems[row] = "is not a date"
            continue
        if moment.tzinfo is not None:
            problems[row] = "has a time zone"
        else:
            values[row] = moment
    return values, problems


def _is_missing(cell: object) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in {"", "nan", "nat", "null", "none"}
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell))
