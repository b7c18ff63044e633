from __future__ import annotations

import bz2
import io
import lzma
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlops_dagster.errors import MlopsError
from mlops_dagster.modeling.contract import check_contract
from mlops_dagster.spec.model import Data, Declaration
from mlops_dagster.stack.file_finding import OutOfReachError, SourceError
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.table_files import sha256_of
from mlops_dagster.stack.table_sources import partitions_of, read_table

COLUMNS = {"x": {"type": "number"}, "y": {"type": "integer"}}


def declared(folder: Path, data: dict[str, Any], **more: Any) -> Declaration:
    """A model in a project: `folder`/defs/it."""
    said = {
        "task": "regression",
        "data": data,
        "contract": COLUMNS,
        "features": ["x"],
        "target": "y",
        "split": {"kind": "random"},
        "estimator": {"class": "sklearn.linear_model.Ridge"},
        "metrics": ["r2"],
        "baseline": "mean",
        **more,
    }
    place = folder / "defs" / "it"
    place.mkdir(parents=True, exist_ok=True)
    return Declaration.model_validate(said).at(place)


def files(path: str, **form: Any) -> dict[str, Any]:
    return {"files": {"path": path, **form}}


def read(declaration: Declaration, partition: str | None = None, **how: Any) -> pd.DataFrame:
    frame, source = read_table(declaration, partition, **how)
    return check_contract(declaration, frame, source=source)


def refused(declaration: Declaration, partition: str | None = None, **how: Any) -> str:
    with pytest.raises(MlopsError) as caught:
        read(declaration, partition, **how)
    return str(caught.value)


ROWS = pd.DataFrame({"x": [1.5, 2.5], "y": [1, 2]})
CSV = b"x,y\n1.5,1\n2.5,2\n"


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("rows.csv", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("rows.csv", CSV, {}),
        ("rows.csv.bz2", bz2.compress(CSV), {}),
        ("rows.csv.xz", lzma.compress(CSV), {}),
        ("rows.csv.zip", zipped(CSV), {}),
        ("rows.txt", b"x\ty\n1.5\t1\n2.5\t2\n", {"separator": "\t"}),
        ("rows.csv", b"\xef\xbb\xbf;x;y\n0;1,5;1\n1;2,5;2\n", {"separator": ";", "decimal": ",", "index": True}),
        ("r.csv", b'"x" "y"\n"1" 1.5 1\n"2" 2.5 2\n', {"separator": " ", "index": True}),
        ("rows.csv", b"x;y;Stra\xdfe\n1,5;1;\xe4\n2,5;2;\n", {"separator": ";", "decimal": ",", "encoding": "latin-1"}),
    ],
    # A ZIP holds the time at which it was made: as a part of their names, tests would differ from process to process.
    ids=["csv", "bz2", "xz", "zip", "tabs", "semicolons", "spaces", "latin-1"],
)
def test_text_files_of_any_form_are_the_same_rows(
    tmp_path: Path, name: str, content: bytes, form: dict[str, Any]
) -> None:
    (tmp_path / name).write_bytes(content)
    pd.testing.assert_frame_equal(read(declared(tmp_path, files(f"../../{name}", **form))), ROWS)


def test_workbooks_parquet_and_delta_are_the_same_rows(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    with pd.ExcelWriter(tmp_path / "rows.xlsx") as book:
        pd.DataFrame({"other": [1]}).to_excel(book, sheet_name="first", index=False)
        ROWS.to_excel(book, sheet_name="rows", index=False, startrow=1)
    ROWS.to_parquet(tmp_path / "rows.parquet")
    write_deltalake(str(tmp_path / "rows"), ROWS, partition_by=["y"])
    for form in (files("../../rows.xlsx", sheet="rows"), files("../../rows.parquet"), files("../../rows")):
        pd.testing.assert_frame_equal(read(declared(tmp_path, form)).sort_values("y", ignore_index=True), ROWS)
    assert "has no sheet 'rosw'; there are first, rows." in refused(
        declared(tmp_path, files("../../rows.xlsx", sheet="rosw"))
    )
    few = LimitSettings(rows=1)
    for form in (files("../../rows.xlsx", sheet="rows"), files("../../rows.parquet"), files("../../rows")):
        assert "raise limits.rows" in refused(declared(tmp_path, form), limits=few)
    meant = {"sha256": sha256_of([tmp_path / "rows.parquet"])}
    assert len(read(declared(tmp_path, files("../../rows.parquet")), overrides=meant)) == 2
    said = refused(declared(tmp_path, files("../../rows.xlsx", sheet="rows")), overrides=meant)
    assert "has changed since it was seen" in said
    assert "it is about files of this machine" in refused(declared(tmp_path, files("../../rows")), overrides=meant)
    (tmp_path / "no.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    assert "is no Excel workbook (.xlsx), or a damaged one" in refused(declared(tmp_path, files("../../no.xlsx")))


def test_numbers_and_dates_are_read_as_declared_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x;y;day\n1.234,5;1;31.12.2024\n1.5;?;2024-01-01\n")
    form = files("../../a.csv", separator=";", decimal=",", thousands=".", dates={"day": "%d.%m.%Y"}, missing=["", "?"])
    contract = {**COLUMNS, "y": {"type": "integer", "nullable": True}, "day": {"type": "date"}}
    declaration = declared(tmp_path, form, contract=contract)
    said = refused(declaration)
    assert "x='1.5' (row 2): is not a number with decimal=',' and thousands='.'" in said
    assert "day='2024-01-01' (row 2): is not written as %d.%m.%Y" in said
    (tmp_path / "a.csv").write_text("x;y;day\n1.234,5;1;31.12.2024\n15;?;01.02.2024\n")
    frame = read(declaration)
    assert frame["x"].tolist() == [1234.5, 15.0]
    assert frame["day"].tolist() == [pd.Timestamp("2024-12-31"), pd.Timestamp("2024-02-01")]
    assert frame["y"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("content", "form", "words"),
    [
        (b"x;y\n1;2\n", {}, "separated by semicolons. Say data.files.separator: ';'."),
        (b"x,y\n1,2\n", {"separator": ";"}, "separated by commas. Say data.files.separator: ','."),
        (b"x,y\n1,2\n1,2,3\n", {}, "line 3 has 3 cells, the header has 2"),
        ("x,y\n1,ä\n".encode("latin-1"), {}, "byte 0xe4 in line 2). Say which it is with data.files.encoding"),
        (CSV, {"encoding": "latin-99"}, "encoding='latin-99': there is no such encoding"),
        (CSV, {"index": True}, "its first column is called 'x'. Leave data.files.index out"),
        (b"x,y,x\n1,2,3\n", {}, "there are several columns 'x'. Rename"),
        (b"", {}, "is empty"),
    ],
)
def test_a_file_that_is_not_as_declared_is_named_with_the_cure(
    tmp_path: Path, content: bytes, form: dict[str, Any], words: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert words in refused(declared(tmp_path, files("../../a.csv", **form)))


def test_a_relative_path_stays_in_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    outside = tmp_path / "rows.csv"
    outside.write_bytes(CSV)
    declared(project, files("a.csv"))
    (project / "linked.csv").symlink_to(outside)
    (project / "folder").symlink_to(tmp_path)
    for path in ("../../../rows.csv", "../../linked.csv", "../../folder/rows.csv", "../../folder/*.csv"):
        assert f"leaves the project {project}: it leads to {outside}" in refused(declared(project, files(path)))
    pd.testing.assert_frame_equal(read(declared(project, files(str(outside)))), ROWS)
    pd.testing.assert_frame_equal(read(declared(project, files("a.csv")), overrides={"path": str(outside)}), ROWS)


def test_partitions_are_files_or_values_of_a_column(tmp_path: Path) -> None:
    for year in ("2023", "2024 [a]"):
        (tmp_path / f"rows {year}.csv").write_bytes(CSV)
    by_file = declared(tmp_path, files("../../rows {year}.csv"), partitions={"name": "year"})
    assert partitions_of(by_file) == ["2023", "2024 [a]"]
    pd.testing.assert_frame_equal(read(by_file, "2024 [a]"), ROWS)
    assert "year='../x' (str): it is part of a file's name" in refused(by_file, "../x")
    (tmp_path / "long.csv").write_bytes(b"shop,x,y\n7,1.5,1\n8,0,0\n7,2.5,bad\n")
    by_column = declared(tmp_path, files("../../long.csv"), partitions={"name": "shop"})
    assert partitions_of(by_column) == ["7", "8"]
    assert "y='bad' (row 3): is not an integer" in refused(by_column, "7")
    assert "no row has shop='9'; there are 7, 8." in refused(by_column, "9")
    assert partitions_of(declared(tmp_path, files("../../long.csv"))) is None
    queried = declared(tmp_path, {"function": ".data:load"}, partitions={"name": "shop"})
    with pytest.raises(SourceError, match=r"Give partitions\.keys"):
        partitions_of(queried)


def test_a_url_is_read_through_fsspec(tmp_path: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for name in ("a", "b"):
        system.pipe_file(f"/tables/{name}.csv", CSV)
    frame, origin = read_table(declared(tmp_path, files("memory://tables/*.csv")), None)
    assert (len(frame), origin) == (4, "memory://tables/*.csv")
    by_file = declared(tmp_path, files("memory://tables/{part}.csv"), partitions={"name": "part"})
    assert partitions_of(by_file) == ["a", "b"]
    pd.testing.assert_frame_equal(read(by_file, "a"), ROWS)
    said = refused(declared(tmp_path, files("memory://me:hunter2@tables/c.csv?token=hunter2")))
    assert "there is no such file" in said
    assert "hunter2" not in said
    assert "can't be opened: Protocol not known: nowhere" in refused(declared(tmp_path, files("nowhere://a.csv")))


def test_a_query_is_asked_with_the_partition_and_never_repeats_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("create table t (shop text, x real, y int)")
        database.executemany("insert into t values (?, ?, ?)", [("a", 1.5, 1), ("a", 2.5, 2), ("b'; --", 9, 9)])
    sql = {"url": "ROWS_URL", "query": "select x, y from t where shop = :shop order by y"}
    declaration = declared(tmp_path, {"sql": sql}, partitions={"name": "shop"})
    assert "the environment variable ROWS_URL isn't set" in refused(declaration, "a")
    monkeypatch.setenv("ROWS_URL", f"sqlite:///{tmp_path}/db")
    pd.testing.assert_frame_equal(read(declaration, "a"), ROWS)
    assert read(declaration, "b'; --")["y"].tolist() == [9]
    assert "there are more than 1 rows" in refused(declaration, "a", limits=LimitSettings(rows=1))
    wrong = declared(tmp_path, {"sql": {**sql, "query": "select z from t"}})
    assert "failed: no such column: z. Check the query" in refused(wrong)
    drop = declared(tmp_path, {"sql": {**sql, "query": "drop table t"}})
    assert "give one SELECT" in refused(drop)
    for url in ("mysql+nodriver://me:hunter2@h/d", "nothing://me:hunter2@h/d", "hunter2", "sqlite:////no/hunter2/db"):
        monkeypatch.setenv("ROWS_URL", url)
        said = refused(declaration, "a")
        assert "ROWS_URL" in said
        assert "hunter2" not in said


def test_a_function_returns_the_rows(tmp_path: Path) -> None:
    declaration = declared(tmp_path, {"function": ".data:load"}, partitions={"name": "shop", "keys": ["a"]})
    (declaration.folder / "data.py").write_text(
        "import pandas as pd\n\n\ndef load(shop):\n    return pd.DataFrame({'x': [1.5, 2.5], 'y': [1, 2]})\n"
    )
    pd.testing.assert_frame_equal(read(declaration, "a"), ROWS)
    (declaration.folder / "data.py").write_text("def load(shop):\n    return [shop]\n")
    assert "function .data:load('a') returned a list; return a pandas DataFrame." in refused(declaration, "a")
    (declaration.folder / "data.py").write_text("def load(shop):\n    return {}[shop]\n")
    assert "data.py:2: KeyError: 'a'" in refused(declaration, "a")


def test_what_cannot_be_read_yet_says_what_can(tmp_path: Path) -> None:
    for kind, value, cure in (
        ("table", "a.b.c", "build the model"),
        ("asset", "rows", "only Dagster can read it; run"),
    ):
        said = refused(declared(tmp_path, files("a.csv")), data=Data.model_validate({kind: value}))
        assert said.startswith(f"data.{kind}={value!r}: ")
        assert cure in said


def test_a_network_that_fails_is_out_of_reach(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(OutOfReachError, match=r"can't be read: .* Check network and credentials"):
        read_table(declared(tmp_path, files("http://127.0.0.1:9/rows.csv")), None)
