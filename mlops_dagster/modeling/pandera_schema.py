"""A contract that is a schema of pandera: its columns' types are read as ours, its checks run on what was read."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.violations import REMOVE, Violation, Where
from mlops_dagster.spec.functions import load_function
from mlops_dagster.spec.model import Dataset


def schema_of(declaration: Dataset) -> Any:
    """Return the schema that a declaration names; None if its contract is columns.

    Raises
    ------
    ParameterError
        If it names something else, or a schema that can't be a contract.
    """
    if not isinstance(declaration.contract, str):
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


def type_of(column: Any) -> Any:
    """Return the type of a schema's column in a declaration's words."""
    kind = str(column.dtype).lower()
    for begins, type_ in (("int", "integer"), ("uint", "integer"), ("float", "number"), ("bool", "boolean")):
        if kind.startswith(begins):
            return type_
    return "date" if kind.startswith(("datetime", "date")) else "text"


def broken_by_schema(schema: Any, checked: pd.DataFrame, where: Where) -> list[Violation]:
    """Run a schema's checks on rows that have their types; say which are broken."""
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
            check = error.check
            # A rule across columns names the one that it is about, if it wants to.
            column = next((str(one) for one in (error.column_name, getattr(check, "name", None)) if one in checked), "")
            problem = str(getattr(check, "error", None) or getattr(check, "name", None) or check)
            if not problem.startswith(("is ", "has ", "there ")):  # what is wrong, in words, and not the rule
                problem = f"breaks the rule {problem}"
            if error.reason_code == SchemaErrorReason.SERIES_CONTAINS_DUPLICATES:
                problem = "was there before"
            if error.reason_code == SchemaErrorReason.CHECK_ERROR:
                found.append(Violation(column or "schema", f"can't be checked ({error})", "correct the schema"))
                continue
            cure = str(getattr(check, "description", None) or REMOVE)
            # A rule of the whole table names no rows.
            cases = (
                error.failure_cases if isinstance(error.failure_cases, pd.DataFrame) else pd.DataFrame({"index": []})
            )
            index = cases["index"].dropna()
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
