from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.contract import check_contract
from mlops_dagster.modeling.violations import ContractError
from mlops_dagster.spec.functions import load_function
from mlops_dagster.spec.steps import data_step
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.table_files import SourceError, read_files
from mlops_dagster_tests.contracts.shipped import shipped

STOCK = shipped("stock_price")
LOAD = load_function(STOCK, "..prices.data:load")

HEADER = "Date,Open,High,Low,Close,Adj Close,Volume\n"
ROW = "2020-01-02,1.5,2.5,0.5,1.25,1.125,1000\n"


def csv_file(folder: Path, content: str | bytes = HEADER + ROW, name: str = "GSPC.csv") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read(path: object, symbol: str = "GSPC", **given: object) -> pd.DataFrame:
    frame: pd.DataFrame = LOAD(symbol, source="files", path=str(path), **given)
    return frame


def checked(frame: pd.DataFrame) -> pd.DataFrame:
    return check_contract(STOCK, frame, source="test")


def problem(path: object, symbol: str = "GSPC") -> str:
    with pytest.raises(SourceError) as caught:
        read(path, symbol)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- bundled


@pytest.mark.parametrize("symbol", ["GSPC", "IXIC"])
def test_the_bundled_prices_are_valid(symbol: str) -> None:
    raw = LOAD(symbol)
    prices = checked(raw)
    assert raw.attrs["origin"] == f"bundled file {symbol}.csv"
    assert list(prices.columns) == ["Date", "Open", "High", "Low", "Close", "AdjClose", "Volume"]
    assert len(prices) == 5031
    assert [str(prices["Date"].iloc[row].date()) for row in (0, -1)] == ["1999-01-04", "2018-12-31"]


def test_a_symbol_that_is_not_bundled_is_named_with_those_that_are() -> None:
    with pytest.raises(SourceError, match=r"symbol='AAPL': .* only of GSPC, IXIC\. Use source 'files'") as caught:
        LOAD("AAPL")
    assert caught.value.exit_status == 2  # orchestrators don't try again


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"source": "files"}, "path=None .*source 'files' needs the path"),
        (
            {"source": "bundled", "path": "a.csv"},
            "path='a.csv' .*belongs to source 'files', but the source is 'bundled'",
        ),
        ({"start": "2020-01-01"}, "start=.*belongs to source 'yahoo', but the source is 'bundled'"),
        ({"source": "files", "path": "a.csv", "end": "2020-01-01"}, "end=.*belongs to source 'yahoo'"),
        ({"source": "yahoo", "start": "01/02/2020"}, "start='01/02/2020' .*YYYY-MM-DD"),
        ({"source": "yahoo", "end": "2020-02-30"}, "end='2020-02-30' .*YYYY-MM-DD"),
        ({"source": "yahoo", "start": "2020-01-02", "end": "2020-01-02"}, "end=.* a day after start='2020-01-02'"),
    ],
)
def test_bad_parameters_are_refused(parameters: Mapping[str, str], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        LOAD("GSPC", **parameters)


# -------------------------------------------------------------------------------------------------- files: what is read


def test_csv_cells_are_kept_as_text_until_they_are_validated(tmp_path: Path) -> None:
    file = csv_file(tmp_path, f"{HEADER}{ROW}2020-01-03,abc, ,null,NaN,1.1,\n")
    frame = read(file)
    assert list(frame.columns) == ["Date", "Open", "High", "Low", "Close", "AdjClose", "Volume"]
    assert frame.loc[0].tolist() == ["2020-01-02", "1.5", "2.5", "0.5", "1.25", "1.125", "1000"]
    assert frame.loc[1, ["Date", "Open", "Low", "Close"]].tolist() == ["2020-01-03", "abc", "null", "NaN"]
    assert frame.loc[1, ["High", "Volume"]].isna().all()
    with pytest.raises(ContractError, match=r"Open=.*abc.*row 2"):
        checked(frame)


@pytest.mark.parametrize(
    "content",
    [
        (HEADER + ROW).replace("\n", "\r\n"),
        "\ufeff" + HEADER + ROW,
        HEADER + ROW.rstrip("\n"),
        "\n" + HEADER + "\n" + ROW + "\n\n",
        HEADER.replace(",", " , ") + ROW.replace(",", ", "),
        HEADER + ",".join(f'"{cell}"' for cell in ROW.strip().split(",")),
    ],
    ids=["Windows", "byte order mark", "no last newline", "blank lines", "blanks", "quotes"],
)
def test_csv_as_other_programs_write_it(tmp_path: Path, content: str) -> None:
    pd.testing.assert_frame_equal(read(csv_file(tmp_path, content)), read(csv_file(tmp_path, name="plain.csv")))


def test_a_header_alone_is_left_to_the_validation(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="rows: there are none"):
        checked(read(csv_file(tmp_path, HEADER)))


@pytest.mark.parametrize("as_index", [False, True])
@pytest.mark.parametrize("name", ["GSPC.parquet", "GSPC.PQ"])
def test_parquet_is_read_with_its_types(tmp_path: Path, price_rows: pd.DataFrame, name: str, as_index: bool) -> None:
    prices = price_rows.assign(Date=pd.to_datetime(price_rows["Date"]))
    (prices.set_index("Date") if as_index else prices).to_parquet(tmp_path / name)
    frame = read(tmp_path / name)
    pd.testing.assert_frame_equal(frame, prices.rename(columns={"Adj Close": "AdjClose"}))


def test_the_symbol_and_the_home_directory_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    csv_file(tmp_path, name="^GSPC.csv")
    frame = read("~/{symbol}.csv", "^GSPC")
    assert (len(frame), frame.attrs["origin"]) == (1, str(tmp_path / "^GSPC.csv"))


def test_a_relative_path_is_one_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert read("{symbol}.csv").attrs["origin"] == str(tmp_path / "GSPC.csv")
    assert f"path='{tmp_path}/IXIC.csv'" in problem("{symbol}.csv", "IXIC")


def test_the_files_of_a_glob_are_joined_in_the_order_of_their_names(tmp_path: Path) -> None:
    for year in (2019, 2018, 2020):
        csv_file(tmp_path, HEADER + ROW.replace("2020", str(year)), f"GSPC_{year}.csv")
    csv_file(tmp_path, name="IXIC_2018.csv")
    (tmp_path / "GSPC_directory.csv").mkdir()
    frame = read(f"{tmp_path}/{{symbol}}_*.csv")
    origin = frame.attrs["origin"]
    assert frame["Date"].tolist() == ["2018-01-02", "2019-01-02", "2020-01-02"]
    assert frame.index.tolist() == [0, 1, 2]
    assert origin == f"3 files, {tmp_path}/GSPC_2018.csv to GSPC_2020.csv"


def test_a_glob_may_cross_directories(tmp_path: Path) -> None:
    for year in ("2018", "2019"):
        (tmp_path / year).mkdir()
        csv_file(tmp_path / year)
    (tmp_path / "2019" / "back").symlink_to(tmp_path)
    assert len(read(f"{tmp_path}/**/GSPC.csv")) == len(read(f"{tmp_path}/20*/**")) == 2
    (tmp_path / "2018" / "empty").mkdir()
    with pytest.raises(SourceError, match="more than 3 folders to look into"):
        read(f"{tmp_path}/**/no.csv", limits=LimitSettings(rows=3))


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    assert len(read(csv_file(tmp_path, name="GSPC [1].csv"))) == 1


def test_files_of_a_glob_have_to_have_the_same_columns(tmp_path: Path) -> None:
    csv_file(tmp_path, name="a.csv")
    csv_file(tmp_path, "Date,Close\n2021-01-01,1\n", name="b.csv")
    assert "b.csv' has the columns Date, Close, but a.csv has Date, Open, High" in problem(f"{tmp_path}/*.csv")


# -------------------------------------------------------------------------------------------- files: what is not there


def test_a_missing_file_is_named_with_those_like_it(tmp_path: Path) -> None:
    for name in ("GSPC_daily.csv", "a.csv", "b.csv", "c.csv", "d.csv", "e.csv"):
        csv_file(tmp_path, name=name)
    assert problem(tmp_path / "GSPC_dayly.csv") == (
        f"path='{tmp_path}/GSPC_dayly.csv': there is no such file. The directory {tmp_path} exists and has "
        "GSPC_daily.csv, a.csv, b.csv, c.csv, d.csv and 1 more. Check the name."
    )


def test_a_missing_directory_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "prices").mkdir()
    message = problem(tmp_path / "price" / "daily" / "GSPC.csv")
    assert f"there is no such file. The nearest directory that exists is {tmp_path} and has prices/." in message


def test_an_empty_directory_is_said_to_be_empty(tmp_path: Path) -> None:
    assert f"The directory {tmp_path} exists and is empty." in problem(tmp_path / "GSPC.csv")


def test_a_file_below_a_file_is_missing(tmp_path: Path) -> None:
    message = problem(csv_file(tmp_path) / "x.csv")
    assert f"there is no such file. The nearest directory that exists is {tmp_path} and has GSPC.csv." in message


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    csv_file(tmp_path)
    message = problem(tmp_path)
    assert (
        message
        == f"path='{tmp_path}' is a directory and has GSPC.csv. Give a file, or a glob such as {tmp_path}/*.csv."
    )


def test_a_glob_that_matches_nothing(tmp_path: Path) -> None:
    csv_file(tmp_path)
    assert problem(f"{tmp_path}/IXIC*.csv") == (
        f"path='{tmp_path}/IXIC*.csv': no file matches. The directory {tmp_path} exists and has GSPC.csv. "
        "Check the name."
    )


def test_a_glob_that_matches_directories_only(tmp_path: Path) -> None:
    (tmp_path / "GSPC.csv").mkdir()
    assert f"{tmp_path}/GSPC.csv is no regular file" in problem(f"{tmp_path}/*.csv")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Reading one waits for ever."""
    os.mkfifo(tmp_path / "GSPC.csv")
    assert "is no regular file" in problem(tmp_path / "GSPC.csv")


@pytest.mark.parametrize("path", ["s3://bucket/GSPC.csv", "https://example.com/GSPC.csv"])
def test_a_url_is_no_path(path: str) -> None:
    assert f"path='{path}' is a URL. Give a path on this machine" in problem(path)


@pytest.mark.parametrize("name", ["x" * 5000, ""])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="path="):
        read(f"{tmp_path}/{name}")


@pytest.mark.parametrize("forbidden", ["file", "directory"])
def test_a_file_that_may_not_be_read(forbidden: str) -> None:
    top = tempfile.TemporaryDirectory()  # not pytest's, to which no other user can come
    Path(top.name).chmod(0o755)
    folder = Path(top.name, "prices")
    folder.mkdir()
    folder.chmod(0o755)
    file = csv_file(folder)
    file.chmod(0o644)
    (file if forbidden == "file" else folder).chmod(0)
    code = f"""
import os
import pandas
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.table_files import SourceError, read_files
if os.getuid() == 0:  # to whom nothing is forbidden
    os.setuid(65534)
try:
    read_files({str(file)!r}, None, LimitSettings())
except SourceError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    folder.chmod(0o755)
    top.cleanup()
    assert ended.stderr == ""
    expected = f"path='{file}' can't be read: Permission denied. Give this user the right to read it.\n"
    assert ended.stdout == expected


# -------------------------------------------------------------------------------------------- files: what can't be read


@pytest.mark.parametrize("content", ["", "\n\n", " \n", "\ufeff"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    assert "GSPC.csv' is empty. Give a file with a header" in problem(csv_file(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "byte", "line"),
    [
        (HEADER.encode() + b"2020-01-02,1,1,1,1,1,1\n2020-01-03,\xe9,1,1,1,1,1\n", "0xe9", 3),
    ],
    ids=["Latin-1"],
)
def test_a_file_that_is_not_utf8(tmp_path: Path, content: bytes, byte: str, line: int) -> None:
    message = problem(csv_file(tmp_path, content))
    assert f"GSPC.csv' is not UTF-8 text (byte {byte} in line {line}). Save it as CSV in UTF-8." in message


def test_utf16_without_its_mark_is_named(tmp_path: Path) -> None:
    file = csv_file(tmp_path)
    file.write_bytes(file.read_text().encode("utf-16-le"))
    assert "GSPC.csv' is text in UTF-16, or no text at all. Save it as CSV in UTF-8." in problem(file)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ((HEADER + ROW).encode("utf-16"), "text in UTF-16. Save it as CSV in UTF-8."),
        (b"PK\x03\x04....xl/workbook.xml", "an Excel workbook (.xlsx)"),
        (b"PK\x03\x04....GSPC.csv", "a damaged zip file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook (.xls)"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b'{"error": "no such symbol"}', "JSON"),
        (b"\x1f\x8b\x08\x00compressed", "a damaged gzip file"),
    ],
)
@pytest.mark.parametrize("name", ["GSPC.csv", "GSPC.parquet"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, what: str, name: str) -> None:
    assert f"{name}' is {what}" in problem(csv_file(tmp_path, content, name))


@pytest.mark.parametrize("name", ["GSPC.csv.gz", "GSPC.csv", "GSPC.parquet.gz"])
def test_gzip_is_unpacked(tmp_path: Path, name: str) -> None:
    plain = csv_file(tmp_path, name="plain.csv")
    expected = read(plain)
    if "parquet" in name:
        expected.to_parquet(plain)
    packed = csv_file(tmp_path, gzip.compress(plain.read_bytes()), name)
    pd.testing.assert_frame_equal(read(packed).astype(object), expected)


TWO_HEADS = "Price,Close,High,Low,Open,Volume,Adj Close\nTicker,A,A,A,A,A,A\nDate,,,,,,\n2020-01-02,2,3,1,2,9,2\n"


@pytest.mark.parametrize(
    "content",
    [TWO_HEADS, "Ticker,A,A,A,A,A,A\nPrice,Close,High,Low,Open,Volume,Adj Close\nDate,,,,,,\n2020-01-02,2,3,1,2,9,2\n"],
)
def test_the_two_heads_of_yfinance_are_one(tmp_path: Path, content: str) -> None:
    frame = read(csv_file(tmp_path, content))
    assert frame.iloc[0].tolist() == ["2020-01-02", "2", "3", "1", "2", "2", "9"]


LIMITS = LimitSettings(rows=3, columns=7, mebibytes=1)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (
            HEADER + ROW * 4,
            "GSPC.csv",
            "more than 3 rows. If it is right, raise",
        ),
        (HEADER.replace("Date", "Date,Note"), "GSPC.csv", "8 columns"),
        ("1," * 4000, "GSPC.csv", "a line of more than 7,000 characters"),
        (HEADER + '"1\n",' * 3000, "GSPC.csv", "a line of more than 7,000 characters"),
        (b"1\n" * 600_000, "GSPC.csv", "more than 1 MiB. If"),
        (gzip.compress(b"1\n" * 600_000), "GSPC.csv.gz", "more than 1 MiB once it is decompressed"),
    ],
    ids=["rows", "columns", "line", "quoted line", "bytes", "bytes in gzip"],
)
def test_what_is_larger_than_daily_prices_are_is_refused(
    tmp_path: Path, content: str | bytes, name: str, said: str
) -> None:
    file = csv_file(tmp_path, content, name)
    with pytest.raises(SourceError, match=r"\(MLOPS_LIMITS__") as refused:
        read(str(file), limits=LIMITS)
    assert said in str(refused.value)


def test_the_limits_hold_for_all_files_of_a_glob_together(tmp_path: Path) -> None:
    for name in "abcd":
        csv_file(tmp_path, HEADER + ROW, f"{name}.csv")
    with pytest.raises(SourceError, match="more than 3 files"):
        read(f"{tmp_path}/*.csv", limits=LIMITS)
    csv_file(tmp_path, HEADER + ROW * 2, "c.csv")
    (tmp_path / "d.csv").unlink()
    with pytest.raises(SourceError, match="more than 3 rows"):
        read(f"{tmp_path}/*.csv", limits=LIMITS)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame({"Close": np.zeros(2_000)}), "has 2,000 rows"),
        (pd.DataFrame({str(name): [1.0] for name in range(8)}), "has 8 columns"),
        (pd.DataFrame({"Close": ["x" * 2_000_000]}), "more than 1 MiB once it is decompressed"),
        (pd.DataFrame({"Close": [b"x" * 100] * 3}), None),
    ],
)
def test_parquet_is_held_to_its_own_footer(tmp_path: Path, frame: pd.DataFrame, said: str | None) -> None:
    """Nothing is decoded before; a megabyte can hold forty million zeros."""
    frame.to_parquet(tmp_path / "GSPC.parquet", compression="zstd")
    if said is None:
        assert len(read_files(f"{tmp_path}/GSPC.parquet", None, LIMITS)[0]) == len(frame)
        return
    with pytest.raises(SourceError, match=said):
        read(f"{tmp_path}/GSPC.parquet", limits=LIMITS)


def test_a_parquet_footer_that_lies_of_its_rows_is_no_way_around(tmp_path: Path) -> None:
    file = tmp_path / "GSPC.parquet"
    pd.DataFrame({"Close": np.zeros(2_000)}).to_parquet(file)
    whole = file.read_bytes()
    data = whole[: -8 - int.from_bytes(whole[-8:-4], "little")]
    # 2,000 as Thrift writes it: the file's rows come first, the group's last, the column's between.
    first, *between, last = whole[len(data) : -8].split(b"\xa0\x1f")
    forged = first + b"\x06" + b"\xa0\x1f".join(between) + b"\x06" + last
    file.write_bytes(data + forged + len(forged).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(SourceError, match="has 2,000 rows"):
        read(str(file), limits=LIMITS)


def test_a_name_that_is_not_utf8_is_refused_or_escaped(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/K\xfcrse.csv")
    Path(odd).write_text(HEADER + ROW)
    (path,) = (one for one in data_step(STOCK).parameters if one.name == "path")
    with pytest.raises(ParameterError, match="bytes that aren't UTF-8; rename the file"):
        path.check(odd)
    origin = read(f"{tmp_path}/K*.csv").attrs["origin"]
    assert origin == f"{tmp_path}/K\\udcfcrse.csv"
    assert "has K\\udcfcrse.csv." in problem(tmp_path / "none.csv")


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_wrong_separator(tmp_path: Path, separator: str, word: str) -> None:
    message = problem(csv_file(tmp_path, (HEADER + ROW).replace(",", separator)))
    assert f"separated by {word}. Save it with commas" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2020-01-03,1,1,1,1,1,1,000\n", "line 3 has 8 cells, the header has 7"),
        ("2020-01-03,1,1,1\n", "line 3 has 4 cells, the header has 7"),
        ('2020-01-03,"1,1,1,1,1,1\n', "line 3 is no CSV: unexpected end of data"),
        ("2020-01-03;1;1;1;1;1;1\n", "line 3 has 1 cells, the header has 7"),
    ],
)
def test_a_line_that_does_not_fit_its_header(tmp_path: Path, line: str, words: str) -> None:
    """pandas would take the additional cells for an index, or drop them."""
    assert words in problem(csv_file(tmp_path, HEADER + ROW + line))


def test_a_parquet_file_that_is_none_or_damaged(tmp_path: Path) -> None:
    file = tmp_path / "GSPC.parquet"
    pd.DataFrame({"Date": ["2020-01-02"] * 1000, "Close": np.arange(1000.0)}).to_parquet(file)
    whole = file.read_bytes()
    for damaged in (b"no parquet at all", whole[:-100], whole[100:], b"\0" * 300 + whole[300:]):
        file.write_bytes(damaged)
        assert "GSPC.parquet' is no Parquet file, or a damaged one (" in problem(file)
    file.write_bytes(b"")
    assert "GSPC.parquet' is empty. Write it again." in problem(file)
    csv_file(tmp_path, name="GSPC.csv").rename(file)
    assert "GSPC.parquet' is no Parquet file" in problem(file)
    file.with_suffix(".csv").write_bytes(whole)
    assert "GSPC.csv' is a Parquet file" in problem(file.with_suffix(".csv"))


def test_loading_the_module_is_cheap() -> None:
    heavy = "pandas", "numpy", "pyarrow", "deltalake", "yfinance"
    code = "import sys, mlops_dagster.stack.table_files, mlops_dagster.stack.store; print([*sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [name for name in heavy if f"'{name}'" in loaded] == []
