"""Price files: finding them, and reading CSV and Parquet within limits, gzip'd or not."""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import hashlib
import io
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError, printable
from mlops_dagster.stack.limits import LimitSettings, raise_it

if TYPE_CHECKING:
    import pandas as pd

_PARQUET = (".parquet", ".pq")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_GZIP = b"\x1f\x8b"
_SAVE = "Save it as CSV in UTF-8."
# How a file begins that is something else, what it is, and the cure.
_OTHERS = (
    (b"\xff\xfe", "text in UTF-16", _SAVE),
    (b"\xfe\xff", "text in UTF-16", _SAVE),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "Save its sheet as CSV in UTF-8."),
    (b"%PDF", "a PDF document", "Get the prices as CSV."),
    (b"BZh", "compressed with bzip2", "Unpack it, or compress it with gzip."),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it, or compress it with gzip."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it, or compress it with gzip."),
    (b"PAR1", "a Parquet file by another name", "Call it .parquet."),
)


class PriceSourceError(MlopsError):
    """The prices can't be read; the message names the path or symbol, what was found there, and the cure."""

    exit_status = 2


class PricesOutOfReachError(PriceSourceError):
    """The prices can't be read now, for example since the network is down; later they may be."""

    exit_status = 1


def read_files(pattern: str, sha256: str | None, limits: LimitSettings) -> tuple[pd.DataFrame, str]:
    """Read a file, or all that match a glob, and say where the rows come from.

    Raises
    ------
    PriceSourceError
        If a file isn't there, isn't what was meant, can't be read, or is too large.
    """
    import pandas as pd

    frames: list[pd.DataFrame] = []
    rows = 0
    try:
        files = _find_files(pattern, limits)
        for file, content in zip(files, _read_bytes(pattern, files, sha256, limits), strict=True):
            frame = _parse(content, file, limits)
            rows += len(frame)
            if rows > limits.rows:
                raise _too_large(pattern, f"more than {limits.rows:,} rows", "rows")
            if frames and list(frame.columns) != list(frames[0].columns):
                raise PriceSourceError(
                    f"path={str(file)!r} has the columns {', '.join(map(str, frame.columns))}, but "
                    f"{printable(files[0].name)} has {', '.join(map(str, frames[0].columns))}. "
                    "Give all files the same columns in the same order."
                )
            frames.append(frame)
    except OSError as error:
        cure = "Give this user the right to read it." if isinstance(error, PermissionError) else "Check path and disk."
        what = error.filename or pattern
        raise PricesOutOfReachError(f"path={str(what)!r} can't be read: {error.strerror or error}. {cure}") from error
    origin = str(files[0]) if len(files) == 1 else f"{len(files)} files, {files[0]} to {files[-1].name}"
    return pd.concat(frames, ignore_index=True), printable(origin)


def sha256_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the bytes of some files, one after the other, without holding them in memory."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _too_large(path: object, what: str, setting: str) -> PriceSourceError:
    return PriceSourceError(f"path={str(path)!r} has {what}, which no daily prices have. {raise_it(setting)}")


def _read_bytes(path: str, files: Sequence[Path], sha256: str | None, limits: LimitSettings) -> list[bytes]:
    contents = []
    left = limits.size
    for file in files:
        with file.open("rb") as opened:
            contents.append(opened.read(left + 1))
        left -= len(contents[-1])
        if left < 0:
            raise _too_large(path, f"more than {limits.mebibytes:,} MiB", "mebibytes")
    digest = hashlib.sha256(b"".join(contents)).hexdigest() if sha256 else ""
    if sha256 and digest != sha256.lower():
        raise PriceSourceError(
            f"path={path!r} has changed since it was seen: its SHA-256 is {digest[:12]}..., expected was "
            f"{sha256[:12].lower()}.... Run again on what is there now; the sensor price_inbox does so by itself."
        )
    return contents


# ---------------------------------------------------------------------------------------------------------- finding


def _find_files(pattern: str, limits: LimitSettings) -> list[Path]:
    if "://" in pattern:
        raise PriceSourceError(f"path={pattern!r} is a URL. Give a path on this machine; copy or mount what it holds.")
    # Absolute in every message: whoever reads it rarely knows the working directory.
    path = Path(pattern).expanduser().absolute()
    if path.is_dir():
        inside = _listing(path, path.name)
        raise PriceSourceError(
            f"path={str(path)!r} is a directory{inside}. Give a file, or a glob such as {path}/*.csv."
        )
    if path.exists():
        found = [path]
    elif glob.has_magic(str(path)):
        names = glob.iglob(str(path), recursive=True)  # noqa: PTH207 absolute
        found = sorted(Path(name) for name in itertools.islice(names, limits.rows + 1))
        if len(found) > limits.rows:
            raise _too_large(path, f"more than {limits.rows:,} files", "rows")
    else:
        raise PriceSourceError(f"path={str(path)!r}: there is no such file. {_nearest(path)}")
    files = [one for one in found if one.is_file()]
    if not files:
        what = f"{printable(str(found[0]))} is no regular file" if found else "no file matches"
        raise PriceSourceError(f"path={str(path)!r}: {what}. {_nearest(path)}")
    return files


def _nearest(path: Path) -> str:
    """Say what there is instead of a file that isn't there."""
    parent = next(one for one in path.parents if one.is_dir())
    if parent != path.parent:
        return f"The nearest directory that exists is {parent}{_listing(parent, path.relative_to(parent).parts[0])}."
    return f"The directory {parent} exists{_listing(parent, path.name)}. Check the name and the symbol."


def _listing(folder: Path, wanted: str) -> str:
    try:
        names = sorted(one.name + "/" * one.is_dir() for one in folder.iterdir() if not one.name.startswith("."))
    except OSError as error:
        return f" ({error.strerror})"
    alike = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
    shown = [*alike, *(name for name in names if name not in alike)][:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f" and has {printable(', '.join(shown))}{more}" if shown else " and is empty"


# ---------------------------------------------------------------------------------------------------------- parsing


def _parse(content: bytes, file: Path, limits: LimitSettings) -> pd.DataFrame:
    name = str(file)
    if content.startswith(_GZIP):
        content = _unpack(content, name, limits)
        file = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    parquet = file.suffix.lower() in _PARQUET
    if wrong := _something_else(content):
        what, cure = wrong
        if not (parquet and content.startswith(b"PAR1")):
            raise PriceSourceError(f"path={name!r} is {what}. {cure}")
    return (_parse_parquet if parquet else _parse_csv)(content, name, limits)


def _unpack(content: bytes, name: str, limits: LimitSettings) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            unpacked = packed.read(limits.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise PriceSourceError(f"path={name!r} is a damaged gzip file ({error}). Get or write it again.") from error
    if len(unpacked) > limits.size:
        raise _too_large(name, f"more than {limits.mebibytes:,} MiB once it is decompressed", "mebibytes")
    return unpacked


def _something_else(content: bytes) -> tuple[str, str] | None:
    """Say what a file is that can't be read, by its first bytes, and the cure."""
    for begins, what, cure in _OTHERS:
        if content.startswith(begins):
            return what, cure
    if content.startswith(b"PK\x03\x04"):
        if b"xl/" in content:
            return "an Excel workbook (.xlsx)", "Save its sheet as CSV in UTF-8."
        return "a zip archive", "Unpack it and give the file in it."
    if content[:200].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page (HTML or XML), perhaps a server's refusal", "Look at it, and download the file itself."
    if content[:200].lstrip().startswith((b"{", b"[")):
        return "JSON", _SAVE
    return None


class _Lines:
    """The lines of a text, none of which, nor any row that goes on over several, is longer than allowed."""

    def __init__(self, content: bytes, name: str, limits: LimitSettings) -> None:
        self.text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
        self.name, self.limits, self.left = name, limits, limits.line

    def next_row(self) -> None:
        self.left = self.limits.line

    def __iter__(self) -> Iterator[str]:
        while line := self.text.readline(self.left + 1):
            self.left -= len(line)
            if self.left < 0:
                raise _too_large(self.name, f"a line of more than {self.limits.line:,} characters", "columns")
            yield line


def _parse_csv(content: bytes, name: str, limits: LimitSettings) -> pd.DataFrame:
    """Read the cells of a CSV file as text without the blanks around it, empty ones as missing.

    With the csv module, because pandas makes an index of cells that the header has no name for, or drops them.
    """
    import numpy as np
    import pandas as pd

    lines = _Lines(content, name, limits)
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    rows: list[list[Any]] = []
    try:
        for cells in reader:
            lines.next_row()
            if len(cells) < 2 and not "".join(cells).strip():
                continue  # a blank line
            if not header:
                header = [cell.strip() for cell in cells]
                _check_separator(name, header)
                if len(header) > limits.columns:
                    raise _too_large(name, f"{len(header):,} columns", "columns")
            elif len(cells) != len(header):
                raise PriceSourceError(
                    f"path={name!r}: line {reader.line_num} has {len(cells)} cells, the header has {len(header)}. "
                    "Correct that line; a comma within a number doesn't belong there."
                )
            elif len(rows) == limits.rows:
                raise _too_large(name, f"more than {limits.rows:,} rows", "rows")
            else:
                rows.append([cell.strip() or np.nan for cell in cells])
    except csv.Error as error:
        raise PriceSourceError(
            f"path={name!r}: line {reader.line_num} is no CSV: {error}. Correct that line."
        ) from error
    except UnicodeDecodeError:
        raise _not_utf8(content, name) from None
    if not header:
        raise PriceSourceError(f"path={name!r} is empty. Give a file with a header and one row per day.")
    columns, rows = _two_heads(header, rows)
    frame: pd.DataFrame = pd.DataFrame(rows, columns=columns, dtype=object)
    return frame


def _not_utf8(content: bytes, name: str) -> PriceSourceError:
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = f"byte 0x{content[error.start]:02x} in line {line}"
        return PriceSourceError(f"path={name!r} is not UTF-8 text ({byte}). {_SAVE}")
    return PriceSourceError(f"path={name!r} is not UTF-8 text. {_SAVE}")


def _two_heads(header: list[str], rows: list[list[Any]]) -> tuple[pd.Index[Any], list[list[Any]]]:
    """Return a frame's columns and rows; pandas writes those with two levels, as yfinance has them, as three lines."""
    import pandas as pd

    is_date = len(rows) > 1 and rows[1][0] in ("Date", "Datetime") and pd.isna(rows[1][1:]).all()
    if is_date and ("Close" in header or "Close" in rows[0]):
        return pd.MultiIndex.from_arrays([["Date", *header[1:]], ["", *rows[0][1:]]]), rows[2:]
    return pd.Index(header), rows


def _check_separator(name: str, header: Sequence[str]) -> None:
    for separator, word in _SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise PriceSourceError(
                f"path={name!r}: its header {header[0][:60]!r} is separated by {word}. Save it with commas between the "
                "cells and a point before the decimals."
            )


def _parse_parquet(content: bytes, name: str, limits: LimitSettings) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # The footer first: a kilobyte may stand for gigabytes. Texts stay as their dictionary, which can't grow.
        schema = pq.ParquetFile(pa.BufferReader(content)).schema
        columns = [schema.column(number) for number in range(len(schema))]
        width = sum(max(8, one.length or 0) for one in columns)  # bytes of a row but for texts
        texts = [one.path for one in columns if one.physical_type == "BYTE_ARRAY" and not one.max_repetition_level]
        # Not pandas.read_parquet: see `Store.read`.
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False, read_dictionary=texts)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        rows = max(file.metadata.num_rows, sum(group.num_rows for group in groups))
        if rows > limits.rows:
            raise _too_large(name, f"{rows:,} rows", "rows")
        if len(columns) > limits.columns:
            raise _too_large(name, f"{len(columns):,} columns", "columns")
        if max(sum(group.total_byte_size for group in groups), rows * width) > limits.size:
            raise _too_large(name, f"more than {limits.mebibytes:,} MiB once it is decompressed", "mebibytes")
        # Lists have no number of rows to go by, and no price is one.
        flat = [one.path for one in columns if not one.max_repetition_level]
        table = file.read(columns=flat if len(flat) < len(columns) else None, use_threads=False)
        frame: pd.DataFrame = table.to_pandas(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        what = "is empty" if not content else f"is no Parquet file, or a damaged one ({error})"
        raise PriceSourceError(f"path={name!r} {what}. Write it again.") from error
    # A frame that was written with its dates as index comes back with them as index.
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    return frame
