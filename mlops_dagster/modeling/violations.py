"""What is wrong with rows: which column, row and value, and the cure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.errors import MlopsError, printable
from mlops_dagster.modeling.typed_cells import Unread

SHOWN = 10
"""Violations that a message lists."""
REMOVE = "correct it at the source, or remove the row"


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
class Where:
    """Says which row of the source one is: its number from 1, and its key."""

    frame: pd.DataFrame
    key: Sequence[str]

    def number(self, at: int) -> str:
        """Return the number of a row, from 1."""
        index = self.frame.index
        row = int(index[at]) if index.dtype.kind in "iu" else at
        return f"{row + 1:,}"

    def row(self, at: int) -> str:
        """Return a row in words."""
        said = [f"{name}={self.frame[name].iloc[at]}" for name in self.key if name in self.frame.columns]
        return f"row {self.number(at)}" + (f", {', '.join(said)}" if said else "")

    def violation(self, column: str, cells: pd.Series[Any], rows: Sequence[int], problem: str, cure: str) -> Violation:
        """Say that rows break a rule, the first of them with its cell."""
        at = min(rows)
        return Violation(column, problem, cure, self.row(at), shown(cells.iloc[at]), len(rows))


def shown(cell: Any) -> str:
    """Return a cell as it is shown in a message."""
    if isinstance(cell, Unread):
        cell = cell.text
    if cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and np.isnan(cell)):
        return "(nothing)"
    value = str(cell) if isinstance(cell, pd.Timestamp | dt.date) else repr(getattr(cell, "item", lambda: cell)())
    return value if len(value) <= 40 else value[:40] + "..."
