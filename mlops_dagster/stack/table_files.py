"""The files of a table, compressed or not, read within limits and joined."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import printable, refuse
from mlops_dagster.stack.binary_files import parse_excel, parse_parquet
from mlops_dagster.stack.csv_files import parse_csv
from mlops_dagster.stack.file_finding import OutOfReachError, SourceError, find_files, too_large
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.table_form import SAVE, UTF_16, Form

if TYPE_CHECKING:
    import pandas as pd

# How a file begins that is something else, what it is, and the cure.
_OTHERS = (
    (b"\xff\xfe", "text in UTF-16", SAVE),
    (b"\xfe\xff", "text in UTF-16", SAVE),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "Save its sheet as CSV in UTF-8."),
    (b"%PDF", "a PDF document", "Get the table as CSV."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it, or compress it with gzip."),
    (b"PAR1", "a Parquet file by another name", "Call it .parquet."),
)


def read_files(
    pattern: str, sha256: str | None, limits: LimitSettings, form: Form | None = None
) -> tuple[pd.DataFrame, str]:
    """Read a file, or all that match a glob, and say where the rows come from.

    Raises
    ------
    SourceError
        If a file isn't there, isn't what was meant, can't be read, or is too large.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise refuse("sha256", sha256, "give 64 hexadecimal digits, as sha256sum prints them.")
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
            f"{sha256[:12].lower()}.... Run again on what is there now; the sensor of the inbox does so by itself."
        )
    return [(str(file), content) for file, content in zip(files, contents, strict=True)]


# ---------------------------------------------------------------------------------------------------------- parsing


def _parse(content: bytes, name: str, limits: LimitSettings, form: Form) -> pd.DataFrame:
    kind = form.kind_of(name)
    if kind != "excel":
        begins = b"PAR1" if kind == "parquet" else UTF_16 if form.encoding.lower().startswith("utf-16") else ()
        content = unpacked(content, name, limits, begins)
    if kind == "csv":
        return parse_csv(content, name, limits, form)
    frame = parse_excel(content, name, limits, form) if kind == "excel" else parse_parquet(content, name, limits)
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
        return "JSON", SAVE
    return None
