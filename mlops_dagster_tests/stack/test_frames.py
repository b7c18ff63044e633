from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_dagster.errors import ParameterError
from mlops_dagster.stack.frames import frame_digest, to_batch
from mlops_dagster_tests.contracts.store_contract import every_type

CODES = {"int8": "<b", "int64": "<q", "bool": "?", "float": "<f", "double": "<d", "timestamp[us]": "<q"}


def digest_in_words(names: dict[str, str], columns: dict[str, list[Any]]) -> str:
    """Say the digest again in plain Python: header, then each column's missing marks and little-endian values."""
    rows = len(next(iter(columns.values())))
    told = json.dumps([rows, [[name, kind] for name, kind in names.items()]]).encode()
    for name, kind in names.items():
        values = columns[name]
        told += b"".join(struct.pack("?", value is None) for value in values)
        if kind == "string":
            texts = [value.encode() for value in values if value is not None]
            told += b"".join(struct.pack("<q", len(text)) for text in texts) + b"".join(texts)
        else:
            missing = math.nan if kind in ("float", "double") else -(2**63)
            told += b"".join(struct.pack(CODES[kind], missing if value is None else value) for value in values)
    return hashlib.sha256(told).hexdigest()


def test_the_digest_is_what_it_says() -> None:
    frame = pd.DataFrame(
        {
            "Date": pd.to_datetime(["1970-01-01 00:00:00.000001", None]).astype("datetime64[us]"),
            "price": [1.5, np.nan],
            "single": np.array([np.nan, 2], dtype="float32"),
            "count": [7, -8],
            "small": np.array([1, -1], dtype="int8"),
            "flag": [True, False],
            "split": [None, "trän"],
        }
    )
    names = {
        "Date": "timestamp[us]",
        "price": "double",
        "single": "float",
        "count": "int64",
        "small": "int8",
        "flag": "bool",
        "split": "string",
    }
    columns: dict[str, list[Any]] = {
        "Date": [1, None],
        "price": [1.5, None],
        "single": [None, 2.0],
        "count": [7, -8],
        "small": [1, -1],
        "flag": [True, False],
        "split": [None, "trän"],
    }
    assert frame_digest(frame) == digest_in_words(names, columns)


def change(frame: pd.DataFrame, row: int, column: str, value: object) -> pd.DataFrame:
    changed = frame.copy()
    changed.loc[row, column] = value
    return changed


@pytest.mark.parametrize(
    "changed",
    [
        change(every_type(), 4, "price", np.nextafter(every_type()["price"][4], 9)),
        change(every_type(), 4, "price", np.nan),
        change(every_type(), 2, "price", 0.0),
        change(every_type(), 1, "infinite", 0.0),
        change(every_type(), 4, "small", 3),
        change(every_type(), 4, "flag", False),
        change(every_type(), 0, "split", "tran"),
        change(every_type(), 1, "split", ""),
        change(every_type(), 2, "split", None),
        change(every_type(), 0, "Date", pd.Timestamp("2020-01-01 00:00:00.000001")),
        change(every_type(), 0, "Date", pd.NaT),
        every_type().astype({"count": "float64"}),
        every_type().astype({"small": "int16"}),
        every_type().astype({"single": "float64"}),
        every_type().rename(columns={"price": "Price"}),
        every_type()[every_type().columns[::-1]],
        every_type().iloc[::-1].reset_index(drop=True),
        every_type().drop(columns="flag"),
        every_type().head(4),
        every_type().assign(more=1.0),
    ],
)
def test_every_change_changes_the_digest(changed: pd.DataFrame) -> None:
    assert frame_digest(changed) != frame_digest(every_type())


def test_texts_are_not_joined_over_cells() -> None:
    assert frame_digest(pd.DataFrame({"a": ["ab", "c"]})) != frame_digest(pd.DataFrame({"a": ["a", "bc"]}))


def test_the_layout_in_memory_does_not_matter() -> None:
    frame = every_type()
    digest = frame_digest(frame)
    assert frame_digest(frame.copy(deep=True)) == digest
    assert frame_digest(pd.concat([frame.iloc[:2], frame.iloc[2:]], ignore_index=True)) == digest
    assert frame_digest(pd.concat([frame, frame], ignore_index=True).iloc[:5]) == digest
    assert frame_digest(pd.concat([frame, frame], ignore_index=True).iloc[5:].reset_index(drop=True)) == digest
    assert frame_digest(frame.assign(price=np.asfortranarray(frame[["price", "price"]].to_numpy())[:, 0])) == digest


def test_the_unit_of_times_and_the_kind_of_missing_do_not_matter() -> None:
    frame = every_type()
    other_nan = np.frombuffer(struct.pack("<Q", 0xFFF8_0000_0000_0001), dtype="<f8")[0]
    assert math.isnan(other_nan)
    for same in (
        frame.astype({"Date": "datetime64[ns]"}),
        frame.astype({"second": "datetime64[s]"}),
        frame.astype({"split": pd.StringDtype()}),
        frame.assign(split=frame["split"].where(frame["split"].notna(), np.nan)),
        frame.assign(price=np.where(frame["price"].isna(), other_nan, frame["price"])),
    ):
        assert frame_digest(same) == frame_digest(frame)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.text(), st.integers(-(2**63), 2**63 - 1)), min_size=1), st.integers(0, 20))
def test_arrow_in_any_chunks_gives_the_same_digest(rows: list[tuple[float, str, int]], cut: int) -> None:
    import pyarrow as pa

    frame = pd.DataFrame(rows, columns=["x", "text", "count"]).astype({"count": "int64"})
    whole = pa.Table.from_pandas(frame, preserve_index=False)
    chunked = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    assert frame_digest(chunked.to_pandas()) == frame_digest(frame)
    assert frame_digest(pa.Table.from_batches([to_batch(frame)]).to_pandas()) == frame_digest(frame)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (np.array([1, 2], dtype="uint8"), r"dtype uint8=1 \(int\): give booleans, signed integers"),
        (pd.array([1, None], dtype="Int64"), r"dtype Int64=1 \(int\): give booleans"),
        (pd.Categorical(["a", "b"]), r"dtype category='a' \(str\): give booleans"),
        (
            pd.to_datetime(["2020-01-01", "2020-01-02"]).tz_localize("UTC"),
            r"dtype datetime64\[ns, UTC\].*: give booleans",
        ),
        (pd.to_timedelta([1, 2], unit="s"), "dtype timedelta64.*: give booleans"),
        (np.array([1, 2], dtype="float16"), "dtype float16=1.0.*: give booleans"),
        (np.array([1j, 2]), "dtype complex128.*: give booleans"),
        (pd.Series(["a", 1.5], dtype=object), "dtype object='a'.*: give booleans"),
        (pd.Series([None, b"a"], dtype=object), r"dtype object=b'a' \(bytes\): give booleans"),
        (pd.Series([{"a": 1}, None], dtype=object), r"dtype object={'a': 1} \(dict\): give booleans"),
        (pd.to_datetime([1, 2], unit="ns"), r"dtype datetime64\[ns\].*can't be kept as timestamp\[us\].*lose data"),
        (pd.Series(["a\ud800", "b"], dtype=object), "dtype object.*can't be kept as string.*surrogates"),
    ],
)
def test_what_would_not_come_back_as_it_is_is_refused(column: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=rf"frame\['x'\] of {words}"):
        to_batch(pd.DataFrame({"fine": [1.0, 2.0], "x": column}))


@pytest.mark.parametrize(
    "index",
    [pd.Index([1, 2]), pd.Index([0, 1], name="Date"), pd.Index(["a", "b"]), pd.date_range("2020", periods=2)],
)
def test_an_index_with_a_meaning_is_refused(index: pd.Index[Any]) -> None:
    with pytest.raises(ParameterError, match=r"index=\[.*only columns are kept: call reset_index"):
        to_batch(pd.DataFrame({"a": [1, 2]}, index=index))


def test_a_plain_index_is_none() -> None:
    assert frame_digest(pd.DataFrame({"a": [1, 2]}, index=[0, 1])) == frame_digest(pd.DataFrame({"a": [1, 2]}))


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a", "A"], [1], [""], [("a", "b")]])
def test_columns_need_names_of_their_own(names: list[Any]) -> None:
    with pytest.raises(ParameterError, match=r"columns=\[.*give at least one, and texts that differ"):
        to_batch(pd.DataFrame([[1] * len(names)], columns=pd.Index(names, dtype=object, tupleize_cols=False)))
