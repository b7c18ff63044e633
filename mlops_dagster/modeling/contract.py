"""The contract of a table: what each column has to hold. A bad cell is shown, never filled in."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.modeling.pandera_schema import broken_by_schema, schema_of, type_of
from mlops_dagster.modeling.typed_cells import READ
from mlops_dagster.modeling.violations import REMOVE, ContractError, Violation, Where, shown
from mlops_dagster.spec.model import Column, Dataset


def check_contract(declaration: Dataset, frame: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Check rows against a model's contract, and return them in its one form.

    Parameters
    ----------
    declaration : Dataset
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
    schema = schema_of(declaration)
    rules = rules_of(declaration)
    named = {str(name): name for name in frame.columns}
    violations = [_missing_column(name, list(named)) for name in rules if name not in named]
    if frame.empty:
        violations.append(Violation("rows", "there are none", "give at least one"))
    where = Where(frame, declaration.key)
    columns: dict[str, Any] = {}
    for name, rule in rules.items():
        if name in named:
            columns[name], found = _check_column(name, rule, frame[named[name]].reset_index(drop=True), where)
            violations += found
    checked: pd.DataFrame = pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))
    broken = {violation.column for violation in violations}
    violations += _check_identity(declaration, checked, where, broken)
    if schema is not None and not violations:
        violations += broken_by_schema(schema, checked, where)
    if violations:
        raise ContractError(source, violations)
    if declaration.time is not None and declaration.time in checked:
        checked = checked.sort_values(declaration.time, kind="stable", ignore_index=True)
    checked.attrs["left_out"] = [name for name in named if name not in rules]
    return checked


def types_of(declaration: Dataset) -> dict[str, str]:
    """Return the type that each column of a contract has, in a declaration's words."""
    return {name: rule.type for name, rule in rules_of(declaration).items()}


def rules_of(declaration: Dataset) -> Mapping[str, Column]:
    """Return what is said of each column; of a pandera schema the types, its checks run afterwards."""
    if isinstance(declaration.contract, Mapping):
        return declaration.contract
    schema = schema_of(declaration)
    return {
        str(name): Column(type=type_of(one), nullable=bool(one.nullable), description=one.description or "")
        for name, one in schema.columns.items()
    }


def _missing_column(name: str, found: list[str]) -> Violation:
    meant = difflib.get_close_matches(name, found, n=1)
    alike = [one for one in found if one.lower() == name.lower()]
    listed = ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
    said = f"did you mean {(alike or meant)[0]!r}?" if alike or meant else f"there are {listed or 'none'}"
    return Violation(name, "the column is missing", f"add it, or correct its name: {said.rstrip('?')}")


def _check_column(name: str, rule: Column, cells: pd.Series[Any], where: Where) -> tuple[Any, list[Violation]]:
    values, problems = READ[rule.type](cells)
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
        breaks(missing & ~unread, "is missing", f"{REMOVE}, or say nullable: true")
    for bound, what, beyond in (
        (rule.minimum, "is below the minimum", series.lt),
        (rule.maximum, "is above the maximum", series.gt),
    ):
        if bound is not None:
            limit = pd.Timestamp(bound) if isinstance(bound, str) else bound
            said_bound = bound if isinstance(bound, str) else f"{bound:.15g}"
            beyond_it = read & beyond(limit).to_numpy(dtype=bool)
            breaks(beyond_it, f"{what} {said_bound}", f"{REMOVE}, or widen the contract")
    if rule.allowed is not None:
        allowed = _allowed(rule)
        few = ", ".join(map(str, rule.allowed[:10])) + (" ..." if len(rule.allowed) > 10 else "")
        breaks(read & ~series.isin(allowed).to_numpy(), f"is none of {few}", f"{REMOVE}, or add it to allowed")
    if rule.unique:
        breaks(read & series.duplicated().to_numpy(), "was there before", "keep one row of each value")
    if rule.nullable and rule.type in ("integer", "boolean"):
        series = series.astype(np.float64)
    elif not found and rule.type == "integer":
        series = series.astype(np.int64)
    elif not found and rule.type == "boolean":
        series = series.astype(bool)
    return series, found


def _allowed(rule: Column) -> list[Any]:
    said: pd.Series[Any] = pd.Series(rule.allowed, dtype=object)
    return list(READ[rule.type](said.map(str) if rule.type == "text" else said)[0])


def _check_identity(declaration: Dataset, checked: pd.DataFrame, where: Where, broken: set[str]) -> list[Violation]:
    """Check key, time and group: none may be missing, and no key may come twice."""
    found = []
    time, group = declaration.time, declaration.group
    for name in dict.fromkeys([*declaration.key, *(one for one in (time, group) if one is not None)]):
        if name in checked and name not in broken and (missing := checked[name].isna()).any():
            what = "key" if name in declaration.key else "time" if name == time else "group"
            rows = np.flatnonzero(missing).tolist()
            found.append(where.violation(name, checked[name], rows, f"is missing, but it is the {what}", REMOVE))
    key = [name for name in declaration.key if name in checked]
    if key and len(key) == len(declaration.key) and not broken & set(key):
        rows = np.flatnonzero(checked.duplicated(key)).tolist()
        if rows:
            first = checked.iloc[rows[0]]
            value = ", ".join(shown(first[name]) for name in key)
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
