"""Files of a table: CSV, Parquet and Excel, compressed or not, read within limits. Cells of CSV stay text."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import printable
from mlops_dagster.stack.file_finding import OutOfReachError, SourceError, find_files, too_large
from mlops_dagster.stack.limits import LimitSettings

if TYPE_CHECKING:
    import pandas as pd

PACKED = (".gz", ".bz2", ".xz", ".zip")
_KINDS = {".parquet": "parquet", ".pq": "parquet", ".xlsx": "excel", ".xlsm": "excel"}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SAVE = "Save it as CSV in UTF-8."
# How a file begins that is something else, what it is, and the cure.
_OTHERS = (
    (b"\xff\xfe", "text in UTF-16", _SAVE),
    (b"\xfe\xff", "text in UTF-16", _SAVE),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "Save its sheet as CSV in UTF-8."),
    (b"%PDF", "a PDF document", "Get the table as CSV."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it, or compress it with gzip."),
    (b"PAR1", "a Parquet file by another name", "Call it .parquet."),
)


@dataclass(frozen=True)
class Form:
    """How the files of a table are written.

    Parameters
    ----------
    kind : {"csv", "parquet", "excel"}, optional
        Not given: by each file's name.
    separator, encoding : str
        Of CSV.
    missing : tuple of str
        The cells of CSV that are missing values, without the blanks around them.
    index : bool
        Whether the first column has no name and is left out.
    sheet : str, optional
        Of Excel. Not given: the first.
    declared : bool
        Whether it is said in a declaration, whose settings then are the cure.
    """

    kind: str | None = None
    separator: str = ","
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ("",)
    index: bool = False
    sheet: str | None = None
    declared: bool = False

    @property
    def resave(self) -> str:
        """What helps if a text isn't in the encoding."""
        return "Say which it is with data.files.encoding, or save it as CSV in UTF-8." if self.declared else _SAVE

    def kind_of(self, name: str) -> str:
        """Return which kind of file one is that is called so."""
        path = PurePath(name.split("?")[0] if "://" in name else name)
        path = path.with_suffix("") if path.suffix.lower() in PACKED else path
        return self.kind or _KINDS.get(path.suffix.lower(), "csv")


def read_files(
    pattern: str, sha256: str | None, limits: LimitSettings, form: Form | None = None
) -> tuple[pd.DataFrame, str]:
    """Read a file, or all that match a glob, and say where the rows come from.

    Raises
    ------
    SourceError
        If a file isn't there, isn't what was meant, can't be read, or is too large.
    """
    try:
        files = find_files(pattern, limits)
        frame = join(pattern, _read_bytes(pattern, files, sha256, limits), limits, form or Form())
    except OSError as error:
        cure = "Give this user the right to read it." if isinstance(error, PermissionError) else "Check path and disk."
        what = error.filename or pattern
        raise OutOfReachError(f"path={str(what)!r} can't be read: {error.strerror or error}. {cure}") from error
    origin = str(files[0]) if len(files) == 1 else f"{len(files)} files, {files[0]} to {files[-1].name}"
    return frame, printable(origin)


def join(pattern: str, files: Iterable[tuple[str, bytes]], limits: LimitSettings, form: Form) -> pd.DataFrame:
    """Return the rows of files, one below the other, by their names and contents.

    Raises
    ------
    SourceError
        If one can't be read, is too large, or has other columns than the first.
    """
    import pandas as pd

    frames: list[pd.DataFrame] = []
    rows, first = 0, ""
    for name, content in files:
        frame = _parse(content, name, limits, form)
        rows += len(frame)
        if rows > limits.rows:
            raise too_large(pattern, f"more than {limits.rows:,} rows", "rows")
        if frames and list(frame.columns) != list(frames[0].columns):
            raise SourceError(
                f"path={name!r} has the columns {', '.join(map(str, frame.columns))}, but "
                f"{printable(PurePath(first).name)} has {', '.join(map(str, frames[0].columns))}. "
                "Give all files the same columns in the same order."
            )
        frames.append(frame)
        first = first or name
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def first_of(pattern: str, limits: LimitSettings) -> tuple[str, bytes]:
    """Return the name and the content of the first file at a path or of a glob."""
    file = find_files(pattern, limits)[0]
    ((name, content),) = _read_bytes(pattern, [file], None, limits)
    return name, content


def sha256_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the bytes of some files, one after the other, without holding them in memory."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _read_bytes(path: str, files: Sequence[Path], sha256: str | None, limits: LimitSettings) -> list[tuple[str, bytes]]:
    contents = []
    left = limits.size
    for file in files:
        with file.open("rb") as opened:
            contents.append(opened.read(left + 1))
        left -= len(contents[-1])
        if left < 0:
            raise too_large(path, f"more than {limits.mebibytes:,} MiB", "mebibytes")
    digest = hashlib.sha256(b"".join(contents)).hexdigest() if sha256 else ""
    if sha256 and digest != sha256.lower():
        raise SourceError(
            f"path={path!r} has changed since it was seen: its SHA-256 is {digest[:12]}..., expected was "
            f"{sha256[:12].lower()}.... Run again on what is there now; the sensor price_inbox does so by itself."
        )
    return [(str(file), content) for file, content in zip(files, contents, strict=True)]


# ---------------------------------------------------------------------------------------------------------- parsing


def _parse(content: bytes, name: str, limits: LimitSettings, form: Form) -> pd.DataFrame:
    kind = form.kind_of(name)
    if kind != "excel":
        begins = b"PAR1" if kind == "parquet" else UTF_16 if form.encoding.lower().startswith("utf-16") else ()
        content = unpacked(content, name, limits, begins)
    if kind == "csv":
        return _parse_csv(content, name, limits, form)
    frame = _parse_excel(content, name, limits, form) if kind == "excel" else _parse_parquet(content, name, limits)
    return frame.iloc[:, 1:] if form.index else frame


def unpacked(content: bytes, name: str, limits: LimitSettings, begins: bytes | tuple[bytes, ...] = ()) -> bytes:
    """Return a file's content, decompressed.

    Parameters
    ----------
    begins : bytes or tuple of bytes
        How a file of the kind that is meant begins; what else isn't text is refused.

    Raises
    ------
    SourceError
        If it is damaged, too large, or no text.
    """
    content = _unpack(content, name, limits)
    wrong = _something_else(content)
    if wrong and not (begins and content.startswith(begins)):
        raise SourceError(f"path={name!r} is {wrong[0]}. {wrong[1]}")
    return content


def _unpack(content: bytes, name: str, limits: LimitSettings) -> bytes:
    import bz2
    import gzip
    import lzma

    stream: Any
    how = ""
    try:
        if content.startswith(b"\x1f\x8b"):
            how = "gzip"
            stream = gzip.GzipFile(fileobj=io.BytesIO(content))
        elif content.startswith(b"BZh"):
            how = "bzip2"
            stream = bz2.BZ2File(io.BytesIO(content))
        elif content.startswith(b"\xfd7zXZ"):
            how = "xz"
            stream = lzma.LZMAFile(io.BytesIO(content))  # noqa: SIM115
        elif content.startswith(b"PK\x03\x04") and b"xl/" not in content:
            how = "zip"
            stream = _only_member(content, name)
        else:
            return content
        with stream:
            plain: bytes = stream.read(limits.size + 1)
    except (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise SourceError(f"path={name!r} is a damaged {how} file ({error}). Get or write it again.") from error
    if len(plain) > limits.size:
        raise too_large(name, f"more than {limits.mebibytes:,} MiB once it is decompressed", "mebibytes")
    return plain


def _only_member(content: bytes, name: str) -> Any:
    archive = zipfile.ZipFile(io.BytesIO(content))
    members = [one for one in archive.namelist() if not one.endswith("/") and not one.startswith("__MACOSX/")]
    if len(members) != 1:
        raise SourceError(
            f"path={name!r} is a zip archive of {len(members)} files. Unpack it and give the files in it."
        )
    return archive.open(members[0])


def _something_else(content: bytes) -> tuple[str, str] | None:
    """Say what a file is that can't be read, by its first bytes, and the cure."""
    for begins, what, cure in _OTHERS:
        if content.startswith(begins):
            return what, cure
    if content.startswith(b"PK\x03\x04"):
        return "an Excel workbook (.xlsx)", "Save its sheet as CSV in UTF-8."
    if content[:200].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page (HTML or XML), perhaps a server's refusal", "Look at it, and download the file itself."
    if content[:200].lstrip().startswith((b"{", b"[")):
        return "JSON", _SAVE
    return None


class _Lines:
    """The lines of a text, none of which, nor any row that goes on over several, is longer than allowed."""

    def __init__(self, content: bytes, name: str, limits: LimitSettings, encoding: str) -> None:
        encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
        try:
            self.text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding, newline="")
        except LookupError:
            raise SourceError(
                f"encoding={encoding!r}: there is no such encoding; give utf-8, latin-1, cp1252 or the like."
            ) from None
        self.name, self.limits, self.left = name, limits, limits.line

    def next_row(self) -> None:
        self.left = self.limits.line

    def __iter__(self) -> Iterator[str]:
        while line := self.text.readline(self.left + 1):
            self.left -= len(line)
            if self.left < 0:
                raise too_large(self.name, f"a line of more than {self.limits.line:,} characters", "columns")
            yield line


def _parse_csv(content: bytes, name: str, limits: LimitSettings, form: Form) -> pd.DataFrame:
    """Read the cells of a CSV file as text without the blanks around it, those that mean missing as missing.

    With the csv module, because pandas makes an index of cells that the header has no name for, or drops them.
    """
    import numpy as np
    import pandas as pd

    if b"\0" in content[:200] and not form.encoding.lower().startswith("utf-16"):
        raise SourceError(f"path={name!r} is text in UTF-16, or no text at all. {form.resave}")
    lines = _Lines(content, name, limits, form.encoding)
    reader = csv.reader(lines, strict=True, delimiter=form.separator)
    missing = frozenset(form.missing)
    header: list[str] = []
    rows: list[list[Any]] = []
    try:
        for cells in reader:
            lines.next_row()
            if len(cells) < 2 and not "".join(cells).strip():
                continue  # a blank line
            if not header:
                header = [cell.strip() for cell in cells]
                _check_separator(name, header, form)
                if len(header) > limits.columns:
                    raise too_large(name, f"{len(header):,} columns", "columns")
                continue
            if form.index and not rows and len(cells) == len(header) + 1:
                header = ["", *header]  # as R writes it
            if len(cells) != len(header):
                raise SourceError(
                    f"path={name!r}: line {reader.line_num} has {len(cells)} cells, the header has {len(header)}. "
                    f"Correct that line; {_SEPARATORS.get(form.separator, repr(form.separator))} within a value "
                    "have to stand in quotes."
                    if form.declared
                    else f"path={name!r}: line {reader.line_num} has {len(cells)} cells, the header has {len(header)}. "
                    "Correct that line; a comma within a number doesn't belong there."
                )
            if len(rows) == limits.rows:
                raise too_large(name, f"more than {limits.rows:,} rows", "rows")
            rows.append([np.nan if (text := cell.strip()) in missing else text for cell in cells])
    except csv.Error as error:
        raise SourceError(f"path={name!r}: line {reader.line_num} is no CSV: {error}. Correct that line.") from error
    except UnicodeError:
        raise _not_decodable(content, name, form) from None
    if not header:
        raise SourceError(f"path={name!r} is empty. Give a file with a header and rows.")
    if form.index:
        if header[0]:
            raise SourceError(
                f"path={name!r}: its first column is called {header[0]!r}. Leave data.files.index out: it is for a "
                "first column without a name."
            )
        header, rows = header[1:], [row[1:] for row in rows]
    columns, rows = (pd.Index(header), rows) if form.declared else _two_heads(header, rows)
    frame: pd.DataFrame = pd.DataFrame(rows, columns=columns, dtype=object)
    return frame


def _not_decodable(content: bytes, name: str, form: Form) -> SourceError:
    shown = "UTF-8" if form.encoding == "utf-8" else form.encoding
    try:
        content.decode(form.encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = f"byte 0x{content[error.start]:02x} in line {line}"
        return SourceError(f"path={name!r} is not {shown} text ({byte}). {form.resave}")
    except UnicodeError:
        pass
    return SourceError(f"path={name!r} is not {shown} text. {form.resave}")


def _two_heads(header: list[str], rows: list[list[Any]]) -> tuple[pd.Index[Any], list[list[Any]]]:
    """Return a frame's columns and rows; pandas writes those with two levels, as yfinance has them, as three lines."""
    import pandas as pd

    is_date = len(rows) > 1 and rows[1][0] in ("Date", "Datetime") and pd.isna(rows[1][1:]).all()
    if is_date and ("Close" in header or "Close" in rows[0]):
        return pd.MultiIndex.from_arrays([["Date", *header[1:]], ["", *rows[0][1:]]]), rows[2:]
    return pd.Index(header), rows


def _check_separator(name: str, header: Sequence[str], form: Form) -> None:
    for separator, word in _SEPARATORS.items():
        if len(header) == 1 and separator != form.separator and separator in header[0]:
            cure = (
                f"Say data.files.separator: {separator!r}."
                if form.declared
                else "Save it with commas between the cells and a point before the decimals."
            )
            raise SourceError(f"path={name!r}: its header {header[0][:60]!r} is separated by {word}. {cure}")


def _parse_excel(content: bytes, name: str, limits: LimitSettings, form: Form) -> pd.DataFrame:
    """Read a sheet: its first row that isn't empty is the header, rows without a value are left out."""
    import pandas as pd

    try:
        import openpyxl
    except ModuleNotFoundError:
        raise SourceError(
            f"path={name!r}: Excel files need the package openpyxl, which isn't installed. "
            'Install it: pip install "mlops_dagster[excel]".'
        ) from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(one.file_size for one in archive.infolist()) > limits.size:
                raise too_large(name, f"more than {limits.mebibytes:,} MiB once it is decompressed", "mebibytes")
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = form.sheet or book.sheetnames[0]
        if sheet not in book.sheetnames:
            raise SourceError(f"path={name!r} has no sheet {sheet!r}; there are {', '.join(book.sheetnames)}.")
        header: list[str] = []
        rows: list[list[Any]] = []
        for cells in book[sheet].iter_rows(values_only=True):
            if all(cell is None or cell == "" for cell in cells):
                continue
            if not header:
                header = ["" if cell is None else str(cell).strip() for cell in cells]
                while not header[-1]:
                    header.pop()
                if len(header) > limits.columns:
                    raise too_large(name, f"{len(header):,} columns", "columns")
            elif any(cell is not None for cell in cells[len(header) :]):
                raise SourceError(
                    f"path={name!r}: row {len(rows) + 1} below the header has values right of it. Give each a name."
                )
            elif len(rows) == limits.rows:
                raise too_large(name, f"more than {limits.rows:,} rows", "rows")
            else:
                rows.append([_excel_cell(cell) for cell in cells[: len(header)]])
        book.close()
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"path={name!r} is no Excel workbook (.xlsx), or a damaged one ({error}). Save it again."
        ) from error
    if not header:
        raise SourceError(f"path={name!r}: sheet {sheet!r} is empty. Give one with a header and rows.")
    width = len(header)
    rows = [[*row, *[None] * (width - len(row))] for row in rows]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=pd.Index(header), dtype=object)
    return frame


def _excel_cell(cell: Any) -> Any:
    return (cell.strip() or None) if isinstance(cell, str) else cell


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
        # Lists have no number of rows to go by, and no price is one.
        flat = [one.path for one in columns if not one.max_repetition_level]
        # What is read is what each column says, whatever the footer says of all.
        parts = [[group.column(number) for number in range(group.num_columns)] for group in groups]
        longest = [max((one.num_values for one in part if one.path_in_schema in flat), default=0) for part in parts]
        rows = max(file.metadata.num_rows, sum(group.num_rows for group in groups), sum(longest))
        if rows > limits.rows:
            raise too_large(name, f"{rows:,} rows", "rows")
        if len(columns) > limits.columns:
            raise too_large(name, f"{len(columns):,} columns", "columns")
        if max(sum(group.total_byte_size for group in groups), rows * width) > limits.size:
            raise too_large(name, f"more than {limits.mebibytes:,} MiB once it is decompressed", "mebibytes")
        table = file.read(columns=flat if len(flat) < len(columns) else None, use_threads=False)
        frame: pd.DataFrame = table.to_pandas(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        what = "is empty" if not content else f"is no Parquet file, or a damaged one ({error})"
        raise SourceError(f"path={name!r} {what}. Write it again.") from error
    # A frame that was written with its dates as index comes back with them as index.
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    return frame
