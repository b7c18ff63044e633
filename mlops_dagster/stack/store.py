"""The store: versioned tables below one root, one Delta table per table name and symbol at ``<root>/<table>/<symbol>``.

What belongs here: everything that is known about keeping tables, on a local disk or in an object store. What
doesn't: what the tables mean, and what of a frame is kept (`frames.py`). A write replaces the whole table in one
commit: a reader sees the version before or the one after, never a mixture. Old versions stay readable; nothing here
ever deletes a file.

What a version is (symbol, digest, rows, the caller's metadata) is kept in the commit itself, in the ``userMetadata``
that Delta tools show in a table's history. Commits of other programs (``VACUUM``, ``OPTIMIZE``, an append) are no
versions of this store and are skipped. Files of killed or beaten writers are in no version, harm nothing and stay. To
get their space back: ``DeltaTable(version.uri).vacuum(24, dry_run=False, full=True, enforce_retention_duration=False,
keep_versions=[one.version for one in store.history(table, symbol)])``.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.pipelines import MlopsError, ParameterError, check_symbol, refuse
from mlops_dagster.stack.frames import batch_digest, frame_digest, to_batch

if TYPE_CHECKING:
    import deltalake
    import pandas as pd

_MARK = "mlops_dagster"  # tells this store's commits from those of other programs
_ATTEMPTS = 40  # every failed one means that another writer succeeded, and they pause in between
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
# delta-rs makes a host name of the whole path: there these characters panic, or are decoded to something else.
_BAD_IN_ROOT = "[]^|%\\"
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
        "Give this user the right to use it, or change the root.",
    ),
    (r"not a ?directory|file exists", "A file is where a directory has to be: move it, or change the root."),
    (r"nosuchbucket", "Create the bucket, or change the root."),
    (r"unknown scheme", "Change the root."),
    (r"credential", "Give credentials in the environment or in the storage options."),
    (r"json error|table metadata|log segment", "The table's log is damaged: restore it, or move that directory away."),
)


class StoreError(MlopsError):
    """A table can't be read or written; the message names the table, the cause and the cure."""


class TableNotFound(StoreError):  # noqa: N818 it reads better where it is caught
    """There is no such table, symbol or version; the message names those that exist."""


@dataclass(frozen=True)
class TableVersion:
    """One version of one table.

    Attributes
    ----------
    table, symbol : str
        Which table it is.
    version : int
        The version of the Delta table, from 0. Other programs' commits leave gaps.
    digest : str
        SHA-256 of what the frame holds, see :func:`mlops_dagster.stack.frames.frame_digest`.
    rows : int
        The number of rows.
    metadata : dict of str to str
        What the caller of ``write`` gave.
    uri : str
        Where the Delta table is: an absolute path or a URL.
    written_at : datetime
        When it was committed, in UTC, by the clock of the machine that wrote it.
    """

    table: str
    symbol: str
    version: int
    digest: str
    rows: int
    metadata: dict[str, str]
    uri: str
    written_at: datetime


class Store:
    """Tables below one root.

    Any number of processes may read and write at once. Those who write the same table take turns: every write that
    returns is in the table's history, and the last one is current. Below ``/Volumes`` this holds for one writer per
    table at a time: there, of two commits at the same moment, one may replace the other (it never mixes with it).

    Parameters
    ----------
    root : str or Path
        An absolute path (on Databricks ``/Volumes/...``, too) or a URL: ``s3://bucket/...``, ``abfss://...``,
        ``gs://...``. Directories are made by the first write.
    storage_options : mapping of str to str, optional
        Options of the object store as deltalake takes them, e.g. ``aws_endpoint_url``. They are never shown.
        Not given: the environment's.

    Raises
    ------
    StoreError
        If the root is relative or can't be a root. Nothing is read or written yet.

    Examples
    --------
    >>> Store("/data/mlops")
    Store('/data/mlops')
    >>> Store("data")
    Traceback (most recent call last):
    ...
    mlops_dagster.stack.store.StoreError: root='data' (str): give an absolute path or a URL such as s3://bucket/mlops.
    """

    def __init__(self, root: str | Path, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = _check_root(root)
        self._is_local = "://" not in self.root
        self.storage_options = dict(storage_options or {})
        if self.root.startswith("/Volumes/"):
            # Databricks' volumes have no hard links, by which delta-rs commits on a local disk; see also `write`.
            self.storage_options.setdefault("allow_unsafe_rename", "true")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"

    def write(
        self, table: str, symbol: str, frame: pd.DataFrame, *, metadata: Mapping[str, str] | None = None
    ) -> TableVersion:
        """Replace the table of one symbol, unless it already is what is given.

        Parameters
        ----------
        table : str
            The table's name: letters, digits and underscores.
        symbol : str
            Whose table.
        frame : DataFrame
            Columns of booleans, signed integers, floats, times without zone (kept in microseconds) or texts, and
            the default index. What is missing is read back as NaN, NaT or None.
        metadata : mapping of str to str, optional
            Kept with the version.

        Returns
        -------
        TableVersion
            The new version; the current one if content and metadata are the same, and then nothing is written.

        Raises
        ------
        ParameterError
            For a bad table name or symbol, metadata that isn't text, or a frame that can't be kept as it is.
        StoreError
            If the write failed. What was stored before is then intact.
        """
        from deltalake import CommitProperties, PostCommitHookProperties, write_deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError

        uri = self._uri(table, symbol)
        batch = to_batch(frame)
        kept = _check_metadata(metadata)
        content = {"symbol": symbol, "digest": batch_digest(batch), "rows": len(frame), "metadata": kept}
        conflict: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if conflict is not None:
                time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempt)))  # noqa: S311 apart from others, not secret
            delta = self._open(uri)
            current = self._newest(delta, table, symbol)
            if current and (current.digest, current.metadata) == (content["digest"], kept):
                return current
            ticket = uuid.uuid4().hex
            try:
                with _explained(f"write {uri}", DeltaError):
                    # Without retries of its own: with them, two first writes end in one version with both rows
                    # (delta-rs 1.6.6). As one batch in one file, because only there the rows keep their order.
                    write_deltalake(
                        uri if delta is None else delta,
                        batch,
                        mode="error" if delta is None else "overwrite",
                        schema_mode=None if delta is None else "overwrite",
                        configuration=_KEEP_EVERYTHING if delta is None else None,
                        storage_options=self.storage_options,
                        target_file_size=2**40,
                        commit_properties=CommitProperties(
                            custom_metadata={"userMetadata": json.dumps({_MARK: {**content, "ticket": ticket}})},
                            max_commit_retries=0,
                        ),
                        post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
                    )
            except DeltaError as error:
                created_by_another = delta is None and self._open(uri) is not None
                if not isinstance(error, CommitFailedError) and not created_by_another:
                    raise _failure(f"write {uri}", error) from error
                conflict = error
                continue
            version = 0 if delta is None else delta.version()
            entry = self._entry(uri, version)
            if entry and entry["ticket"] == ticket:
                return _version(table, symbol, version, uri, entry)
            # Where a commit is a mere rename (volumes), somebody who commits at the same moment may replace ours.
            conflict = StoreError(f"version {version} is another writer's")
        raise StoreError(
            f"could not write {uri}: {_ATTEMPTS} attempts failed, as if others wrote it all the time. What they wrote "
            f"is intact; write again. The last failure: {_cause(conflict)}."
        ) from conflict

    def read(self, table: str, symbol: str, *, version: int | None = None) -> tuple[pd.DataFrame, TableVersion]:
        """Read a table as it was written, its rows in their order.

        Parameters
        ----------
        table, symbol : str
            Which table.
        version : int, optional
            Which version. Not given: the current one.

        Raises
        ------
        TableNotFound
            If there is no such table, symbol or version.
        StoreError
            If it can't be read, or isn't what was written: the digest is checked.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq
        from deltalake import DeltaTable

        uri = self._uri(table, symbol)
        delta = self._open(uri)
        found = self._newest(delta, table, symbol)
        if delta is None or found is None:
            exist = ", ".join(self.symbols(table)) or "none yet"
            raise TableNotFound(
                f"there is no table {table!r} of {symbol!r} below {self.root}; symbols that have it: {exist}. "
                "Run the step that makes it, or check symbol and root."
            )
        if version is not None and (type(version) is not int or version != found.version):  # True isn't 1
            entry = self._entry(uri, version) if type(version) is int and 0 <= version <= delta.version() else None
            if entry is None:
                exist = ", ".join(str(one.version) for one in self.history(table, symbol)[-20:])
                raise TableNotFound(f"{uri} has no version={version!r}. Choose one of the last: {exist}.")
            found = _version(table, symbol, version, uri, entry)
        with _explained(f"read version {found.version} of {uri}"):
            if found.version != delta.version():
                delta = DeltaTable(uri, version=found.version, storage_options=self.storage_options)
            # Not as an Arrow dataset (deltalake's to_pandas, pq.read_table): when Python ends while a thread of
            # Arrow's still holds one of Python's objects, the process is aborted after all of its work.
            parts = [
                pq.ParquetFile(pa.BufferReader(self._bytes(uri, path)), pre_buffer=False).read(use_threads=False)
                for path in delta.get_add_actions().column("path").to_pylist()
            ]
            tables = parts or [pa.schema(delta.schema().to_arrow()).empty_table()]
            frame: pd.DataFrame = pa.concat_tables(tables).to_pandas(use_threads=False)
            digest = frame_digest(frame)
        if digest != found.digest:
            raise StoreError(
                f"version {found.version} of {uri} isn't what was written: its digest is {digest}, not {found.digest}. "
                "Its files were damaged or changed: restore them, read another version, or write the table again."
            )
        return frame, found

    def current(self, table: str, symbol: str) -> TableVersion | None:
        """Return the current version, or None if there is no such table. Reads the log only, no data."""
        return self._newest(self._open(self._uri(table, symbol)), table, symbol)

    def history(self, table: str, symbol: str) -> list[TableVersion]:
        """Return all versions, oldest first; none if there is no such table."""
        uri = self._uri(table, symbol)
        delta = self._open(uri)
        entries = ((version, self._entry(uri, version)) for version in range(delta.version() + 1 if delta else 0))
        return [_version(table, symbol, version, uri, entry) for version, entry in entries if entry]

    def symbols(self, table: str) -> list[str]:
        """Return the symbols that have this table, sorted."""
        from deltalake import DeltaTable
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import FileSelector, FileType

        folder = self._folder(table)
        found = []
        with _explained(f"list {folder}"):
            if self._is_local and not _exists(folder):
                return []
            entries = DeltaStorageHandler(folder, self.storage_options).get_file_info_selector(FileSelector(""))
            for name in (Path(entry.path).name for entry in entries if entry.type == FileType.Directory):
                try:
                    symbol = check_symbol(_symbol_of(name))
                except ParameterError:
                    continue  # something else that lies there
                if DeltaTable.is_deltatable(self._uri(table, symbol), self.storage_options):
                    found.append(symbol)
        return sorted(found)

    def _folder(self, table: str) -> str:
        if not isinstance(table, str) or not _TABLE.fullmatch(table):
            raise refuse("table", table, "give 1 to 64 letters, digits or _ beginning with a letter.")
        return f"{self.root}/{table}"

    def _uri(self, table: str, symbol: str) -> str:
        return f"{self._folder(table)}/{_name_of(check_symbol(symbol))}"

    def _open(self, uri: str) -> deltalake.DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with _explained(f"open {uri}"):
            if self._is_local and not _exists(uri):
                return None
            try:
                return DeltaTable(uri, storage_options=self.storage_options)
            except TableNotFoundError as error:
                if "Unknown scheme" in str(error):
                    raise
                return None

    def _bytes(self, uri: str, path: str) -> bytes:
        from deltalake.fs import DeltaStorageHandler

        return bytes(DeltaStorageHandler(uri, self.storage_options).open_input_file(path).read())

    def _entry(self, uri: str, version: int) -> dict[str, Any] | None:
        """Read what this store wrote into a commit; None for a commit of another program.

        Not through `DeltaTable.history`, which numbers the commits wrongly if the table grew after it was opened.
        """
        with _explained(f"read the log of {uri}"):
            try:
                lines = self._bytes(uri, f"_delta_log/{version:020d}.json").splitlines()
            except FileNotFoundError:
                return None  # another program cleaned the log
            commits = [action["commitInfo"] for action in map(json.loads, lines) if "commitInfo" in action]
            try:
                return {**json.loads(commits[0]["userMetadata"])[_MARK], "timestamp": commits[0]["timestamp"]}
            except (LookupError, TypeError, ValueError):
                return None

    def _newest(self, delta: deltalake.DeltaTable | None, table: str, symbol: str) -> TableVersion | None:
        if delta is None:
            return None
        uri = self._uri(table, symbol)
        for version in range(delta.version(), -1, -1):
            entry = self._entry(uri, version)
            if entry:
                return _version(table, symbol, version, uri, entry)
        raise StoreError(f"{uri} is a Delta table that this store didn't write. Move it away, or change the root.")


def _exists(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 Path.exists, and delta-rs, call a forbidden directory a missing one
    except FileNotFoundError:
        return False
    return True


def _name_of(symbol: str) -> str:
    return symbol.replace("^", "@")  # delta-rs panics on a path with ^, and no symbol has a @


def _symbol_of(name: str) -> str:
    return name.replace("^", " ").replace("@", "^")


def _check_root(root: object) -> str:
    text = root.as_posix() if isinstance(root, Path) else root
    cure = None
    if not isinstance(text, str) or not ("://" in text or Path(text).is_absolute()) or text.startswith("file://"):
        cure = "give an absolute path or a URL such as s3://bucket/mlops."
    elif set(text) & set(_BAD_IN_ROOT):
        cure = f"Delta tables can't lie below a path with one of {' '.join(_BAD_IN_ROOT)}; choose another."
    if cure:
        raise StoreError(str(refuse("root", root, cure)))
    return str(text).rstrip("/")


def _check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise refuse(f"metadata[{key!r}]", value, "names and values have to be texts.")
    return dict(metadata or {})


def _version(table: str, symbol: str, version: int, uri: str, entry: Mapping[str, Any]) -> TableVersion:
    if entry["symbol"] != symbol:
        raise StoreError(
            f"{uri} is the table of {entry['symbol']!r}, not of {symbol!r}: to this disk, upper and lower case are "
            "the same. Use one spelling."
        )
    written_at = datetime.fromtimestamp(entry["timestamp"] / 1000, timezone.utc)
    return TableVersion(table, symbol, version, entry["digest"], entry["rows"], entry["metadata"], uri, written_at)


@contextmanager
def _explained(doing: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn whatever deltalake and Arrow raise into a StoreError, except for what the caller handles."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (StoreError, *passed)):
            raise
        raise _failure(doing, error) from error


def _failure(doing: str, error: Exception) -> StoreError:
    cause = _cause(error)
    cures = [cure for words, cure in _CURES if re.search(words, cause, re.IGNORECASE)]
    return StoreError(f"could not {doing}: {cause}. {''.join(cures[:1])}".strip())


def _cause(error: object) -> str:
    """Say what deltalake said in one line, without its colours, arrows and stack traces."""
    text = re.sub(r"\x1b\[\d+m|↳", "", str(error))
    text = re.split(r"\n\s+0: ", text)[0]
    return re.sub(r"\s*\n\s*", ": ", text.strip()).rstrip(".")
