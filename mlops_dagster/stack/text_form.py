"""How a CSV file is written, recognised from its bytes: encoding, separator, a first column that only counts rows."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from mlops_dagster.stack.file_finding import SourceError

_SEPARATORS = (";", "\t", "|", ",", " ")  # of two that fit equally, the earlier: decimals have commas, too
_SAMPLE = 200


def recognise_form(content: bytes, name: str) -> dict[str, Any]:
    r"""Return what a declaration has to say of a CSV file beside its path: what isn't as it is by default.

    Raises
    ------
    SourceError
        If it is empty, or its first line is no header.

    Examples
    --------
    >>> recognise_form(";Größe\n0;1,5\n1;2\n".encode("latin-1"), "a.csv")
    {'encoding': 'latin-1', 'separator': ';', 'index': True}
    """
    encoding = _encoding(content)
    text = content.decode(encoding, errors="replace")
    separator, rows = _separated(text)
    form: dict[str, Any] = {} if encoding == "utf-8-sig" else {"encoding": encoding}
    if separator != ",":
        form["separator"] = separator
    if not rows:
        raise SourceError(f"path={name!r} is empty. Give a file with a header and rows.")
    header = [cell.strip() for cell in rows[0]]
    if all(re.fullmatch(r"[+-]?[\d.,]+(e[+-]?\d+)?", cell, re.IGNORECASE) for cell in header):
        raise SourceError(
            f"path={name!r} has no header: its first line is {', '.join(header)[:60]!r}. "
            "Write the names of the columns above it."
        )
    if len(rows) > 1 and (not header[0] or len(rows[1]) == len(header) + 1):
        form["index"] = True
    return form


def _encoding(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        # Windows puts letters and quotes where Latin-1 has characters that nobody writes.
        return "cp1252" if re.search(rb"[\x80-\x9f]", content) else "latin-1"
    return "utf-8-sig"


def _separated(text: str) -> tuple[str, list[list[str]]]:
    """Return the separator that cuts most rows into as many cells as the header has, and the first rows."""
    best: tuple[float, int, str, list[list[str]]] = (-1.0, 0, ",", [])
    for separator in _SEPARATORS:
        rows: list[list[str]] = []
        try:
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
                if row and (len(row) > 1 or row[0].strip()):
                    rows.append(row)
                if len(rows) == _SAMPLE:
                    break
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        fit = sum(len(row) in (width, width + (separator == " ")) for row in rows) / len(rows) if rows else 0.0
        if len(rows) > 1 and len(rows[1]) == width + 1:  # R leaves the name of the first column out
            fit = sum(len(row) == width + 1 for row in rows[1:]) / len(rows[1:])
        # One cell a row always fits; a separator has to make several of most.
        score = (fit if width > 1 else 0.01, width if fit > 0.9 else 0, separator, rows)
        if score[:2] > best[:2]:
            best = score
    return best[2], best[3]
