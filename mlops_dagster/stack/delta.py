"""Delta tables through delta-rs: open, commit, read, list, and what is wrong when that fails.

Each way around a peculiarity names it; all were seen with deltalake 1.6.6.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.secrets import as_cause, redacted

if TYPE_CHECKING:
    import deltalake
    import pandas as pd
    import pyarrow as pa

FORBIDDEN_IN_PATHS = "[]^|%\\"
"""delta-rs makes a host name of the whole path: there these characters panic, or are decoded to something else."""

# Nothing of a table may expire, whoever vacuums it or cleans its log: an old version is an old model's evidence.
_KEEP_EVERYTHING: Mapping[str, str | None] = {
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
}
_CURES = (
    (r"no space left|file too large|storagefull|quota", "Make room there; what was stored before is intact."),
    (
        r"permission ?denied|access ?denied|forbidden|read-only",
        "Give this user the right to use it, or set MLOPS_HOME or store.root to a folder that can be written.",
    ),
    (r"not a ?directory|file exists", "A file is where a directory has to be: move it, or change the root."),
    (r"nosuchbucket", "Create the bucket, or change the root."),
    (r"unknown scheme", "Change the root."),
    (r"credential", "Give credentials in the environment or in the storage options."),
    (r"json error|table metadata|log segment", "The table's log is damaged: restore it, or move that directory away."),
)


def unfit_root(root: str) -> str | None:
    r"""Say why no Delta table can lie below a path or URL; None if one can. Links are followed, as delta-rs does.

    Examples
    --------
    >>> unfit_root("s3://bucket/50%")
    "Delta tables can't lie below a path with one of [ ] ^ | % \\; choose another."
    """
    if re.search(r"[\x00-\x1f\x7f]", root):
        return "it has a character that can't be printed; choose another."
    real = root if "://" in root else os.path.realpath(root)
    if set(real) & set(FORBIDDEN_IN_PATHS):
        leads = "" if set(root) & set(FORBIDDEN_IN_PATHS) else f"it leads to {real}, and "
        return f"{leads}Delta tables can't lie below a path with one of {' '.join(FORBIDDEN_IN_PATHS)}; choose another."
    return None


class StoreError(MlopsError):
    """A table can't be read or written; the message names the table, the cause and the cure."""


class Conflict(Exception):  # noqa: N818 not an error: whoever sees it looks again and repeats
    """Another writer was faster; nothing was written."""


class Commit(NamedTuple):
    """What a commit says about itself: what its writer put there, and when it was made (UTC)."""

    user_metadata: str
    made_at: datetime


@contextmanager
def store_errors(doing: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn whatever deltalake and Arrow raise into a :class:`StoreError`, except for what the caller handles."""
    try:
        yield
    except Exception as error:  # deltalake raises bare Exceptions, too
        if isinstance(error, (StoreError, *passed)):
            raise
        cause = one_line(error)
        cures = [cure for words, cure in _CURES if re.search(words, cause, re.IGNORECASE)]
        raise StoreError(f"could not {redacted(doing)}: {cause}. {''.join(cures[:1])}".strip()) from as_cause(error)


def one_line(error: object) -> str:
    """Say what deltalake said without its colours, arrows, line breaks and stack traces."""
    text = re.sub(r"\x1b\[\d+m|↳", "", str(error))
    text = re.split(r"\n\s+0: ", text)[0]
    return redacted(re.sub(r"\s*\n\s*", ": ", text.strip()).rstrip("."))


def open_table(uri: str, options: dict[str, str], version: int | None = None) -> deltalake.DeltaTable | None:
    """Open the table at a path or URL, at its newest version if none is given; None if there is no table."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with store_errors(f"open {uri}"):
        if not _may_exist(uri):
            return None
        try:
            return DeltaTable(uri, version=version, storage_options=options)
        except TableNotFoundError as error:
            if "Unknown scheme" in str(error):
                raise
            return None


def replace_rows(
    uri: str, table: deltalake.DeltaTable | None, rows: pa.RecordBatch, user_metadata: str, options: dict[str, str]
) -> int:
    """Replace all rows, and the columns with them, in one commit; None for the table creates it.

    Returns
    -------
    int
        The new version.

    Raises
    ------
    Conflict
        If the table isn't any more as it was when it was opened.
    """
    from deltalake import CommitProperties, PostCommitHookProperties, write_deltalake
    from deltalake.exceptions import DeltaError

    with store_errors(f"write {uri}", Conflict):
        try:
            write_deltalake(
                uri if table is None else table,
                rows,  # one batch into one file: only so they keep their order
                target_file_size=2**40,
                mode="error" if table is None else "overwrite",
                schema_mode=None if table is None else "overwrite",
                configuration=_KEEP_EVERYTHING if table is None else None,
                storage_options=options,
                commit_properties=CommitProperties(
                    custom_metadata={"userMetadata": user_metadata},  # `DESCRIBE HISTORY` shows it
                    # With retries of its own, two simultaneous first writes end in one version with both rows.
                    max_commit_retries=0,
                ),
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )
        except DeltaError as error:
            # A full disk fails a commit, too: it was a conflict if there is a version that wasn't there before.
            now = open_table(uri, options)
            if now is not None and (table is None or now.version() > table.version()):
                raise Conflict(one_line(error)) from error
            raise
        return 0 if table is None else table.version()


def read_commit(uri: str, version: int, options: dict[str, str]) -> Commit | None:
    """Read what a commit says about itself; None if its file is gone or says nothing.

    Not through `DeltaTable.history`, which numbers the commits wrongly if the table grew after it was opened.
    """
    with store_errors(f"read the log of {uri}"):
        try:
            lines = _read_file(uri, f"_delta_log/{version:020d}.json", options).splitlines()
        except FileNotFoundError:
            return None  # another program cleaned the log
        for info in (action["commitInfo"] for action in map(json.loads, lines) if "commitInfo" in action):
            made_at = datetime.fromtimestamp(info.get("timestamp", 0) / 1000, timezone.utc)
            return Commit(info.get("userMetadata") or "", made_at)
    return None


def read_rows(uri: str, table: deltalake.DeltaTable, options: dict[str, str]) -> pd.DataFrame:
    """Read all rows in their order.

    Not as an Arrow dataset (deltalake's `to_pandas`, `pq.read_table`): if Python ends while a thread of Arrow's still
    holds one of its objects, the process is aborted, after all of its work.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [_read_file(uri, path, options) for path in data_files(table)]
    parts = [pq.ParquetFile(pa.BufferReader(file), pre_buffer=False).read(use_threads=False) for file in files]
    empty = pa.schema(table.schema().to_arrow()).empty_table()
    frame: pd.DataFrame = pa.concat_tables(parts or [empty]).to_pandas(use_threads=False)
    return frame


def data_files(table: deltalake.DeltaTable) -> dict[str, int]:
    """Return the files that hold the rows of the version that was opened, relative to the table, and their bytes."""
    actions: Any = table.get_add_actions()
    return dict(zip(actions.column("path").to_pylist(), actions.column("size_bytes").to_pylist(), strict=True))


def lost_files(uri: str, table: deltalake.DeltaTable, options: dict[str, str]) -> list[str]:
    """Say which files of the version that was opened aren't as the log has them. Looks at their sizes, reads none."""
    from deltalake.fs import DeltaStorageHandler

    wanted = data_files(table)
    with store_errors(f"look at the files of {uri}"):
        found = [(one.path, one.size) for one in DeltaStorageHandler(uri, options).get_file_info([*wanted])]
    return [
        f"{uri}/{path} " + ("is gone" if size is None else f"has {size} bytes instead of {wanted[path]}")
        for path, size in found
        if size != wanted[path]
    ]


def list_tables(folder: str, options: dict[str, str]) -> Iterator[str]:
    """Yield the names of the tables directly below a path or URL, sorted; each is looked at when it is asked for."""
    from deltalake import DeltaTable
    from deltalake.fs import DeltaStorageHandler
    from pyarrow.fs import FileSelector, FileType

    with store_errors(f"list {folder}"):
        if not _may_exist(folder):
            return
        entries = DeltaStorageHandler(folder, options).get_file_info_selector(FileSelector(""))
        names = sorted(Path(entry.path).name for entry in entries if entry.type == FileType.Directory)
    for name in names:
        with store_errors(f"list {folder}"):
            found = not set(name) & set(FORBIDDEN_IN_PATHS) and DeltaTable.is_deltatable(f"{folder}/{name}", options)
        if found:
            yield name


def _read_file(uri: str, path: str, options: dict[str, str]) -> bytes:
    from deltalake.fs import DeltaStorageHandler

    return bytes(DeltaStorageHandler(uri, options).open_input_file(path).read())


def _may_exist(uri: str) -> bool:
    """Whether to ask delta-rs at all: to it, a directory that may not be read is one that isn't there."""
    try:
        return "://" in uri or bool(os.stat(uri))  # noqa: PTH116 so is it to Path.exists
    except FileNotFoundError:
        return False
