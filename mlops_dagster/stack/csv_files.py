"""CSV files, read within limits: cells stay the texts that they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlops_dagster.stack.file_finding import SourceError, too_large
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.table_form import Form

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


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


def parse_csv(content: bytes, name: str, limits: LimitSettings, form: Form) -> pd.DataFrame:
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
