"""Parquet and Excel files and tables of Delta, read within limits."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import needs
from mlops_dagster.stack.file_finding import SourceError, too_large
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.secrets import redacted
from mlops_dagster.stack.table_form import Form

if TYPE_CHECKING:
    import pandas as pd


def parse_excel(content: bytes, name: str, limits: LimitSettings, form: Form) -> pd.DataFrame:
    """Read a sheet: its first row that isn't empty is the header, rows without a value are left out."""
    import pandas as pd

    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise SourceError(needs(f"path={name!r}", error)) from None
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


def parse_parquet(content: bytes, name: str, limits: LimitSettings) -> pd.DataFrame:
    """Read a Parquet file, whose footer says before how much there is."""
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
        # Lists have no number of rows to go by, and no cell is one.
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


def read_delta(path: str, limits: LimitSettings) -> tuple[pd.DataFrame, str]:
    """Read the newest version of a Delta table at a path or URL, and say which it is."""
    import pyarrow as pa
    from deltalake import QueryBuilder

    from mlops_dagster.stack.delta import open_table, store_errors

    table = open_table(path, {})
    if table is None:
        raise SourceError(f"path={redacted(path)!r}: there is no Delta table. Check the path.")
    with store_errors(f"read {redacted(path)}"):
        actions = pa.table(table.get_add_actions(flatten=True)).to_pydict()
        sizes, rows = (sum(one or 0 for one in actions.get(name, [])) for name in ("size_bytes", "num_records"))
        if sizes > limits.size:
            raise too_large(redacted(path), f"more than {limits.mebibytes:,} MiB", "mebibytes")
        if rows > limits.rows:
            raise too_large(redacted(path), f"{rows:,} rows", "rows")
        # Not `to_pandas`: if Python ends while a thread of Arrow's holds an object, the process is aborted.
        batches = QueryBuilder().register("t", table).execute("SELECT * FROM t")
        frame: pd.DataFrame = pa.table(batches.read_all()).to_pandas(use_threads=False)
    return frame, f"{redacted(path)}, version {table.version()}"
