"""What `/invocations` reads: what MLflow's own scoring server reads, and nothing that isn't a number."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import scoring_server
from mlflow.types.schema import ColSpec, DataType, Schema

from mlops_dagster.errors import MlopsError
from mlops_dagster.shell.scoring_rows import MAX_ROWS, read_rows

COLUMNS = ["a", "b"]
SCHEMA = Schema([ColSpec(DataType.double, name) for name in COLUMNS])
RECORDS = [{"a": 1, "b": 2.5}, {"b": -1e-300, "a": 0}]


@pytest.mark.parametrize(
    "asked",
    [
        {"dataframe_split": {"columns": ["b", "other", "a"], "data": [[2.5, "x", 1], [3, None, 1e30]]}},
        {"dataframe_split": {"index": [7], "columns": COLUMNS, "data": [[1, 2]]}, "params": {}},
        {"dataframe_records": RECORDS},
        {"dataframe_records": [{**record, "other": "x"} for record in RECORDS]},
        {"instances": RECORDS},
        {"inputs": {"b": [1, 2], "a": [3.5, 4]}},
    ],
    ids=str,
)
def test_json_is_read_as_mlflow_reads_it(asked):
    theirs = pd.DataFrame(scoring_server.infer_and_parse_data(scoring_server._split_data_and_params(asked)[0], SCHEMA))
    np.testing.assert_array_equal(
        read_rows(json.dumps(asked).encode(), "application/json", COLUMNS), theirs[COLUMNS].to_numpy()
    )


def test_csv_is_read_as_mlflow_reads_it():
    frame = pd.DataFrame({"b": [0.1, 1e-5], "name": ["x", "y, z"], "a": [3, 4]})
    for text in (frame.to_csv(), frame.to_csv(index=False, lineterminator="\r\n")):
        theirs = scoring_server.parse_csv_input(pd.io.common.StringIO(text), SCHEMA)[COLUMNS]
        np.testing.assert_array_equal(read_rows(text.encode(), "text/csv; charset=UTF-8", COLUMNS), theirs.to_numpy())


def test_records_with_names_of_their_own_make_no_table_of_all_names():
    asked = [{f"c{number}": 1} for number in range(2_000)]
    body = json.dumps({"dataframe_records": [*asked, {"a": 1, "b": 2}]}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(MlopsError, match=r"a=None \(NoneType\): in row 1"):
            read_rows(body, "application/json", COLUMNS)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000  # a cell of each name in each row: 32 MB
    finally:
        tracemalloc.stop()


def split(row, columns='["a", "b"]'):
    return f'{{"dataframe_split": {{"columns": {columns}, "data": [[1, 2], {row}]}}}}'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        *[
            (split(f"[{value}, 2]"), f"a={shown}: in row 2, give a finite number below 3.4e")
            for value, shown in (
                ("NaN", r"nan \(float\)"),
                ("null", r"None \(NoneType\)"),
                ("-Infinity", r"-inf \(float\)"),
                ("1e39", r"1e\+39 \(float\)"),
                ("1" + 50 * "0", r"10+ \(int\)"),
                ("true", r"True \(bool\)"),
                ('"1.1"', r"'1.1' \(str\)"),
                ("[1]", r"\[1\] \(list\)"),
            )
        ],
        (split("[1]"), "Row 2 has 1 values, and there are 2 columns"),
        (split("[1, 2, 3]"), "Row 2 has 3 values, and there are 2 columns"),
        (split("7"), r"row=7 \(int\): row 2 has to be a list of 2 values"),
        (split("[1, 2]", '["a", "c"]'), "b: missing. The model asks for a, b"),
        (split("[1, 2]", '["a", []]'), "b: missing"),
        (split("[1, 2, 3]", '["a", "b", "a"]'), "a: given more than once"),
        ('{"dataframe_records": [{"a": 1, "b": 2}, {"a": 1}]}', r"b=None \(NoneType\): in row 2"),
        ('{"dataframe_records": {"a": [1], "b": [2]}}', "Give dataframe_records as a list of rows, each an object"),
        ('{"dataframe_split": [[1, 2]]}', "Give dataframe_split as"),
        ('{"inputs": {"a": [1], "b": [1, 2]}}', "different numbers of values"),
        ('{"inputs": {}}', "There is no row"),
        ('{"instances": []}', "There is no row"),
        ('{"instances": [[1, 2]], "inputs": [[1, 2]]}', "exactly one of dataframe_split, dataframe_records"),
        ('{"rows": []}', "exactly one of"),
        ("[]", "exactly one of"),
        ("", "isn't JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"inputs":' * 100_000, "nested too deeply"),
        ("[1" + 5_000 * "0" + "]", "isn't JSON"),
        ('{"instances": [' + ",".join(["[1, 2]"] * (MAX_ROWS + 1)) + "]}", "10,001 rows are too many"),
    ],
    ids=lambda text: text[:70],
)
def test_what_cannot_be_answered_is_refused_in_one_sentence(body, said):
    with pytest.raises(MlopsError, match=said):
        read_rows(body.encode(), "application/json", COLUMNS)


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"a,b\n1,\n", "text/csv", r"b='' \(str\): in row 1"),
        (b"a,b\n1,nan\n", "text/csv", r"b=nan \(float\): in row 1"),
        (b"\xef\xbb\xbfa,b\n1,\n", "text/csv", r"b='' \(str\): in row 1"),  # with a byte order mark
        (b"a,b\n1\n", "text/csv", "Row 1 has 1 values"),
        (b"", "text/csv", "isn't CSV with a line of column names"),
        (b"a,b\n" + b"1" * 200_000, "text/csv", "isn't CSV"),
        (b"\xff", "text/csv", r"isn't UTF-8 \(invalid start byte at byte 0\)"),
        (b"{}", "text/plain", "Send application/json or text/csv"),
        (b"{}", "", "Send application/json or text/csv"),
        (b"PAR1", "application/vnd.apache.parquet", "Send application/json or text/csv"),
        (b"{}", "application/json; charset=latin-1", "in UTF-8"),
    ],
    ids=str,
)
def test_other_types_and_bad_csv_are_refused(body, content_type, said):
    with pytest.raises(MlopsError, match=said):
        read_rows(body, content_type, COLUMNS)
