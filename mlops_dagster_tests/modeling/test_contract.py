from __future__ import annotations

import datetime as dt
import decimal
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.contract import check_contract
from mlops_dagster.modeling.violations import ContractError
from mlops_dagster.spec.model import Declaration

SAID: dict[str, Any] = {
    "task": "regression",
    "data": {"files": {"path": "a.csv"}},
    "features": ["x"],
    "target": "y",
    "split": {"kind": "random"},
    "estimator": {"class": "sklearn.linear_model.Ridge"},
    "metrics": ["r2"],
    "baseline": "mean",
}


def checked(contract: Any, frame: pd.DataFrame, folder: Path = Path(), **more: Any) -> pd.DataFrame:
    declaration = Declaration.model_validate({**SAID, "contract": contract, **more}).at(folder)
    return check_contract(declaration, frame, source="rows.csv")


def refused(contract: Any, frame: pd.DataFrame, folder: Path = Path(), **more: Any) -> list[str]:
    with pytest.raises(ContractError) as caught:
        checked(contract, frame, folder, **more)
    return [str(one) for one in caught.value.violations]


def column(kind: str, **more: Any) -> dict[str, Any]:
    return {"c": {"type": kind, **more}}


def rows(*cells: Any) -> pd.DataFrame:
    return pd.DataFrame({"c": pd.Series(cells, dtype=object)})


@pytest.mark.parametrize(
    ("kind", "cells", "dtype", "values"),
    [
        ("integer", ("1", " 2 ", 3, 4.0, "5.0", decimal.Decimal(6)), "int64", [1, 2, 3, 4, 5, 6]),
        ("integer", ("9007199254740993", 1), "int64", [9007199254740993, 1]),
        ("integer", ("1", None), "float64", [1.0, np.nan]),
        ("number", ("1.5", 2, decimal.Decimal("2.5"), "1e3", ".5"), "float64", [1.5, 2.0, 2.5, 1000.0, 0.5]),
        ("boolean", ("true", "No", 1, 0.0, True, "F"), "bool", [True, False, True, False, True, False]),
        ("boolean", ("yes", np.nan), "float64", [1.0, np.nan]),
        ("text", ("ä", 7, None), "object", ["ä", "7", None]),
        (
            "date",
            ("2024-12-31", dt.date(2024, 1, 1), pd.Timestamp("2024-01-01 12:00"), None),
            "datetime64[us]",
            [pd.Timestamp(one) for one in ("2024-12-31", "2024-01-01", "2024-01-01 12:00")] + [pd.NaT],
        ),
        (
            "date",
            ("2024-12-31T00:00:00Z", "2024-12-31T00:00:00+01:00"),
            "datetime64[us]",
            [pd.Timestamp("2024-12-31"), pd.Timestamp("2024-12-30 23:00")],
        ),
    ],
)
def test_cells_are_read_as_the_type_says(kind: str, cells: tuple[Any, ...], dtype: str, values: list[Any]) -> None:
    nullable = any(one is None or one != one for one in cells)
    found = checked(column(kind, nullable=nullable), rows(*cells))["c"]
    pd.testing.assert_series_equal(found, pd.Series(values, name="c", dtype=dtype))


@pytest.mark.parametrize(
    "cells",
    [
        pd.Series([1, 2], dtype="uint8"),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1.0, 2.0], dtype="float32"),
        pd.Series(["1", "2"], dtype="category"),
        pd.Series(["1", "2"], dtype="string"),
    ],
)
def test_every_dtype_of_pandas_is_read(cells: pd.Series[Any]) -> None:
    assert checked(column("integer"), cells.to_frame("c"))["c"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("rule", "cells", "said"),
    [
        (column("number"), ("1.5", "1,5"), "c='1,5' (row 2): is not a number; write it as a plain number such as 1234"),
        (column("number"), ("NA", "NA"), "c='NA' (row 1 and 1 more): is not a number; correct it at the source, or "),
        (column("number"), ("nan",), "if it means 'no value', add 'nan' to data.files.missing."),
        (column("number"), (float("inf"),), "c=inf (row 1): is infinite"),
        (column("number"), (True,), "c=True (row 1): is not a number"),
        (column("integer"), ("1.5",), "c='1.5' (row 1): is not an integer; write it as a whole number, or declare"),
        (column("integer"), (2**70,), "is too large for an integer"),
        (column("integer", nullable=True), (2**60, None), "is too large for an integer beside missing values"),
        (column("boolean"), ("maybe",), "c='maybe' (row 1): is neither true nor false; write true or false"),
        (column("text"), (1.5,), "c=1.5 (row 1): is no text but a float"),
        (column("date"), ("31.12.2024",), "c='31.12.2024' (row 1): is not a date; write it as YYYY-MM-DD, or say"),
        (column("date"), ("2024-01-01T00:00Z", "2024-01-01"), "(row 2): has no time zone, but other rows have one"),
        (column("number"), (1.0, None), "c=(nothing) (row 2): is missing; correct it at the source, or remove the row"),
        (column("number", minimum=0), (-1,), "c=-1 (row 1): is below the minimum 0; correct"),
        (column("date", maximum="2024-12-31"), ("2025-01-01",), "(row 1): is above the maximum 2024-12-31"),
        (column("text", allowed=["a", "b"]), ("c",), "c='c' (row 1): is none of a, b; correct"),
        (column("integer", unique=True), (7, 7), "c=7 (row 2): was there before; keep one row of each value."),
    ],
)
def test_a_cell_that_breaks_its_rule_is_shown(rule: Any, cells: tuple[Any, ...], said: str) -> None:
    (violation,) = refused(rule, rows(*cells))
    assert said in violation


def test_several_violations_come_in_one_message() -> None:
    contract = {f"c{at}": {"type": "number"} for at in range(14)}
    with pytest.raises(ContractError) as caught:
        checked(contract, pd.DataFrame({name: ["x", "1"] for name in contract}))
    message = str(pickle.loads(pickle.dumps(caught.value)))
    assert message.startswith("rows.csv: the rows can't be used, 14 violations of the contract:\n  - c0='x' (row 1): ")
    assert message.endswith("\n  - and 4 more")


def test_columns_are_found_by_name_and_others_are_left_out() -> None:
    frame = pd.DataFrame({"Extra": [1], "b": ["2"], "a": ["1"]})
    found = checked({"a": {"type": "integer"}, "b": {"type": "integer"}}, frame)
    assert found.columns.tolist() == ["a", "b"]
    assert found.attrs["left_out"] == ["Extra"]
    (said,) = refused({"extra": {"type": "integer"}}, frame)
    assert said == "extra: the column is missing; add it, or correct its name: did you mean 'Extra'."
    assert "there are none; give at least one" in refused({"a": {"type": "integer"}}, frame.iloc[:0])[0]


def test_rows_are_identified_ordered_and_grouped() -> None:
    contract = {"id": {"type": "text"}, "day": {"type": "date"}, "y": {"type": "number", "nullable": True}}
    frame = pd.DataFrame({"id": ["a", "b", "a"], "day": ["2024-01-02", "2024-01-01", "2024-01-01"], "y": ["1", "", 3]})
    frame = frame.replace("", None)
    ordered = checked(contract, frame, key=["id", "day"], time="day")
    assert ordered["id"].tolist() == ["b", "a", "a"]
    (twice,) = refused(contract, frame, key=["id"])
    assert twice == "id='a' (row 3): the key was there before; keep one row of each, or add columns to the key."
    (missing,) = refused(contract, frame, time="day", group="y")
    assert "y=(nothing) (row 2): is missing, but it is the group" in missing
    # The rows of a partition are numbered as they are in the source, and a bad one is named with its key.
    (bad,) = refused(contract, frame.assign(y=["1", "2", "x"])[frame["id"] == "a"], key=["id", "day"])
    assert bad.startswith("y='x' (row 3, id=a, day=2024-01-01): is not a number")


def test_a_schema_of_pandera_is_a_contract(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(
        "import pandera.pandas as pa\n\n"
        "ROWS = pa.DataFrameSchema({\n"
        "    'a': pa.Column(int, pa.Check.ge(0), unique=True),\n"
        "    'b': pa.Column(float, pa.Check(lambda b: b < 9, error='below 9', description='ask Ann'), nullable=True),\n"
        "    'day': pa.Column('datetime64[ns]'),\n"
        "}, checks=pa.Check(lambda frame: frame['a'] != frame['b'], error='a differs from b'))\n\n\n"
        "class Rows(pa.DataFrameModel):\n    a: int\n\n\nNOTHING = 1\n"
    )
    frame = pd.DataFrame({"a": ["1", "2"], "b": ["1.5", None], "day": ["2024-01-01", "2024-01-02"], "c": [0, 0]})
    found = checked(".rules:ROWS", frame, tmp_path)
    assert found.dtypes.astype(str).tolist() == ["int64", "float64", "datetime64[us]"]
    assert checked(".rules:Rows", frame, tmp_path)["a"].tolist() == [1, 2]
    assert refused(".rules:ROWS", frame.assign(a=["-1", "-1"], b=[9.5, -1]), tmp_path) == [
        "a=-1 (row 2): was there before; correct it at the source, or remove the row.",
        "a=-1 (row 1 and 1 more): breaks the rule greater_than_or_equal_to(0); correct it at the source, or remove "
        "the row.",
        "b=9.5 (row 1): breaks the rule below 9; ask Ann.",
        "schema=... (row 2): breaks the rule a differs from b; correct it at the source, or remove the row.",
    ]
    assert "a='x' (row 2): is not an integer" in refused(".rules:ROWS", frame.assign(a=["1", "x"]), tmp_path)[0]
    with pytest.raises(ParameterError, match="it is a int; name a pandera DataFrameSchema"):
        checked(".rules:NOTHING", frame, tmp_path)
