"""The store: versioned tables below one root, one Delta table per table name and symbol at ``<root>/<table>/<symbol>``.

A write replaces the whole table in one commit: a reader sees the version before or the one after, never a mixture. Old
versions stay readable; nothing here ever deletes a file.

What a version is (symbol, digest, rows, the caller's metadata) is kept in the commit itself, in the ``userMetadata``
that Delta tools show in a table's history. Commits of other programs (``VACUUM``, ``OPTIMIZE``, an append) are no
versions of this store and are skipped. Files of killed or beaten writers are in no version, harm nothing and stay. To
get their space back: ``DeltaTable(version.uri).vacuum(24, dry_run=False, full=True, enforce_retention_duration=False,
keep_versions=[one.version for one in store.history(table, symbol)])``.
"""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlops_dagster.errors import ParameterError, refuse
from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.spec.steps import DATA
from mlops_dagster.stack import delta
from mlops_dagster.stack.databricks.volumes import VolumeCopies, is_outside
from mlops_dagster.stack.databricks.workspace import connect
from mlops_dagster.stack.delta import StoreError as StoreError
from mlops_dagster.stack.frames import batch_digest, frame_digest, to_batch

if TYPE_CHECKING:
    import deltalake
    import pandas as pd

    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment

_MARK = "mlops_dagster"  # tells this store's commits from those of other programs
_ATTEMPTS = 40  # every failed one means that another writer succeeded, and they pause in between
_NAMED = 10  # of the symbols that there are
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class Overtaken(StoreError):  # noqa: N818 it reads better where it is caught
    """Somebody else has written the table since it was read; nothing was written. Read it again, and decide again."""


class Damaged(StoreError):  # noqa: N818 it reads better where it is caught
    """The files of a version are gone or changed. `what` says which; the message also says the cure."""

    def __init__(self, version: TableVersion, what: str, cure: str) -> None:
        super().__init__(f"{what} {cure}")
        self.version, self.what = version, what


class TableNotFound(StoreError):  # noqa: N818 it reads better where it is caught
    """There is no such table, symbol or version; the message names those that exist."""


@dataclass(frozen=True)
class TableVersion:
    """One version of one table.

    Attributes
    ----------
    version : int
        The version of the Delta table, from 0. Other programs' commits leave gaps.
    digest : str
        SHA-256 of what the frame holds, see :func:`mlops_dagster.stack.frames.frame_digest`.
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
    volumes : VolumeCopies, optional
        How to read ``/Volumes/...`` on a machine that hasn't got it: through the workspace. Nothing can be written
        from there. Not given: with the environment's credentials.
    elsewhere : mapping of str to str, optional
        The roots of tables that aren't below `root`: of those that models share.

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

    def __init__(
        self,
        root: str | Path,
        storage_options: Mapping[str, str] | None = None,
        *,
        volumes: VolumeCopies | None = None,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self.root = _check_root(root)
        self._elsewhere = dict(elsewhere or {})
        self.storage_options = dict(storage_options or {})
        if self.root.startswith("/Volumes/"):
            # Databricks' volumes have no hard links, by which delta-rs commits on a local disk; see also `write`.
            self.storage_options.setdefault("allow_unsafe_rename", "true")
        self._volumes = (volumes or VolumeCopies(connect)) if is_outside(self.root) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"

    def write(
        self,
        table: str,
        symbol: str,
        frame: pd.DataFrame,
        *,
        metadata: Mapping[str, str] | None = None,
        replacing: TableVersion | Literal["any", "nothing"] = "any",
    ) -> TableVersion:
        """Replace the table of one symbol, unless it already is what is given.

        Parameters
        ----------
        table : str
            The table's name: letters, digits and underscores.
        frame : DataFrame
            Columns of booleans, signed integers, floats, times without zone (kept in microseconds) or texts, and
            the default index. What is missing is read back as NaN, NaT or None.
        replacing : TableVersion or {"any", "nothing"}, default="any"
            Which version has to be current still, for what was decided on it. "nothing": there may be no table yet.

        Returns
        -------
        TableVersion
            The new version; the current one if content and metadata are the same and its files are there, and then
            nothing is written.

        Raises
        ------
        ParameterError
            For a bad table name or symbol, metadata that isn't text, or a frame that can't be kept as it is.
        Overtaken
            If another version is current than `replacing` says. Of several writers that replace the same, one succeeds.
        StoreError
            If the write failed. What was stored before is then intact.
        """
        uri = self._uri(table, symbol)
        if self._volumes:
            raise StoreError(
                f"could not write {uri}: this machine has no such volume. It is written on Databricks: set the "
                "deployment's compute to databricks_pipes or databricks_step, or choose another store.root."
            )
        batch = to_batch(frame)
        kept = _check_metadata(metadata)
        content = {"symbol": symbol, "digest": batch_digest(batch), "rows": len(frame), "metadata": kept}
        conflict: object = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempt)))  # noqa: S311 apart from others, not secret
            opened = delta.open_table(uri, self.storage_options)
            current = self._newest(opened, table, symbol, uri)
            if replacing != "any":
                _check_not_overtaken(current, None if replacing == "nothing" else replacing, uri)
            same = current and (current.digest, current.metadata) == (content["digest"], kept)
            if opened and current and same and not self._lost(opened, current):
                return current
            mine = json.dumps({_MARK: content, "ticket": uuid.uuid4().hex})
            try:
                version = delta.replace_rows(uri, opened, batch, mine, self.storage_options)
            except delta.Conflict as error:
                conflict = error
                continue
            commit = delta.read_commit(uri, version, self.storage_options)
            written = self._version(commit, table, symbol, version) if commit else None
            if written and commit and commit.user_metadata == mine:
                return written
            # Where a commit is a mere rename (volumes), somebody who commits at the same moment may replace ours.
            conflict = f"version {version} is another writer's"
        raise StoreError(
            f"could not write {uri}: other writers were faster in {_ATTEMPTS} attempts. What they wrote is intact; "
            f"write again. The last conflict: {conflict}."
        )

    def read(
        self, table: str, symbol: str, *, version: int | None = None, digest: str | None = None, verify: bool = True
    ) -> tuple[pd.DataFrame, TableVersion]:
        """Read a table as it was written, its rows in their order.

        Parameters
        ----------
        version : int, optional
            Which version. Not given: the current one.
        digest : str, optional
            What the version has to hold, since a number is given away again if a table is deleted and made anew.
            Without `version`: the newest that holds it.
        verify : bool, default=True
            Whether the digest is checked, which takes half of the time. Only an overview may do without.

        Raises
        ------
        TableNotFound
            If there is no such table, symbol or version, or the version holds something else.
        Damaged
            If it isn't what was written: the digest is checked.
        StoreError
            If it can't be read.
        """
        uri = self._uri(table, symbol)
        opened, at = self._open(table, symbol)
        found = self._newest(opened, table, symbol, at)
        if opened is None or found is None:
            some = [*islice(self._symbols(table), _NAMED + 1)]  # a thousand would take their time
            exist = ", ".join(some[:_NAMED]) + (", ..." if len(some) > _NAMED else "") or "none yet"
            root = self._folder(table).rpartition("/")[0]
            raise TableNotFound(
                f"there is no table {table!r} of {symbol!r} below {root}; there is one of: {exist}. "
                "Run the step that makes it, or check the name and the root."
            )
        if version is not None and (type(version) is not int or version != found.version):  # True isn't 1
            is_number = type(version) is int and 0 <= version <= opened.version()
            commit = delta.read_commit(at, version, self.storage_options) if is_number else None
            chosen = self._version(commit, table, symbol, version) if commit else None
            if chosen is None and digest is None:
                exist = ", ".join(str(one.version) for one in self.history(table, symbol)[-20:])
                raise TableNotFound(f"{uri} has no version={version!r}. Choose one of the last: {exist}.")
            if chosen is None:
                raise _made_anew(f"{uri} has no version {version}", table)
            found = chosen
        if digest not in (None, found.digest):
            same = (one for one in self._versions(opened, table, symbol, at) if one.digest == digest)
            chosen = next(same, None) if version is None else None
            if chosen is None:
                what = f"has no version {digest[:12]}"
                if version is not None:
                    what = f"version {version} is {found.digest[:12]} and not {digest[:12]}"
                raise _made_anew(f"{uri}: {what}", table)
            found = chosen
        opened = self._at_version(opened, found, at)
        try:
            with delta.store_errors(f"read version {found.version} of {uri}"):
                if self._volumes:
                    self._volumes.table(uri, [*delta.data_files(opened)])
                frame = delta.read_rows(at, opened, self.storage_options)
                digest = frame_digest(frame) if verify else found.digest
        except StoreError as error:
            lost = [] if self._volumes else self._lost(opened, found)
            if not lost and not isinstance(error.__cause__, ValueError):  # as Arrow's errors of a file's content are
                raise
            raise _damaged(found, lost, error) from error
        if digest != found.digest:
            raise _damaged(found, [], f"its digest is {digest}, not {found.digest}")
        return frame, found

    def current(self, table: str, symbol: str) -> TableVersion | None:
        """Return the current version, or None if there is no such table. Reads the log only, no data."""
        opened, at = self._open(table, symbol)
        return self._newest(opened, table, symbol, at)

    def history(self, table: str, symbol: str) -> list[TableVersion]:
        """Return all versions, oldest first; none if there is no such table."""
        opened, at = self._open(table, symbol)
        return [] if opened is None else [*self._versions(opened, table, symbol, at)][::-1]

    def symbols(self, table: str) -> list[str]:
        """Return the symbols that have this table, sorted."""
        return sorted(self._symbols(table))

    def _symbols(self, table: str) -> Iterator[str]:
        folder = self._folder(table)
        for name in self._volumes.tables(folder) if self._volumes else delta.list_tables(folder, self.storage_options):
            with suppress(ParameterError):  # something else that lies there
                yield check_partition(_symbol_of(name))

    def _folder(self, table: str) -> str:
        if not isinstance(table, str) or not _TABLE.fullmatch(table):
            raise refuse("table", table, "give 1 to 64 letters, digits or _ beginning with a letter.")
        return f"{self._elsewhere.get(table, self.root)}/{table}"

    def _uri(self, table: str, symbol: str) -> str:
        return f"{self._folder(table)}/{_name_of(check_partition(symbol))}"

    def _open(self, table: str, symbol: str) -> tuple[deltalake.DeltaTable | None, str]:
        """Open a table if it is there, and say where it is read from: where it is, or an up-to-date copy."""
        uri = self._uri(table, symbol)
        at = self._volumes.table(uri) if self._volumes else uri
        return delta.open_table(at, self.storage_options), at

    def _at_version(self, opened: deltalake.DeltaTable, version: TableVersion, at: str) -> deltalake.DeltaTable:
        if version.version == opened.version():
            return opened
        return delta.open_table(at, self.storage_options, version.version) or opened

    def _lost(self, opened: deltalake.DeltaTable, version: TableVersion) -> list[str]:
        uri = version.uri
        return delta.lost_files(uri, self._at_version(opened, version, uri), self.storage_options)

    def _newest(self, opened: deltalake.DeltaTable | None, table: str, symbol: str, at: str) -> TableVersion | None:
        if opened is None:
            return None
        for version in self._versions(opened, table, symbol, at):
            return version
        uri = self._uri(table, symbol)
        raise StoreError(f"{uri} is a Delta table that this store didn't write. Move it away, or change the root.")

    def _versions(self, opened: deltalake.DeltaTable, table: str, symbol: str, at: str) -> Iterator[TableVersion]:
        """Yield this store's versions, newest first, and only read what is asked for."""
        for number in range(opened.version(), -1, -1):
            commit = delta.read_commit(at, number, self.storage_options)
            version = commit and self._version(commit, table, symbol, number)
            if version:
                yield version

    def _version(self, commit: delta.Commit, table: str, symbol: str, number: int) -> TableVersion | None:
        """Understand a commit of this store; None if it is another program's."""
        try:
            content: dict[str, Any] = json.loads(commit.user_metadata)[_MARK]
        except (ValueError, LookupError, TypeError):
            return None
        uri = self._uri(table, symbol)
        if content["symbol"] != symbol:
            raise StoreError(
                f"{uri} is the table of {content['symbol']!r}, not of {symbol!r}: to this disk, upper and lower case "
                "are the same. Use one spelling."
            )
        return TableVersion(
            table, symbol, number, content["digest"], content["rows"], content["metadata"], uri, commit.made_at
        )


def store_of(deployment: Deployment, model: Declaration | None = None) -> Store:
    """Return the store of a deployment, or of one of its declared models; nothing is connected yet."""
    volumes = VolumeCopies(lambda: connect(deployment.databricks), deployment.home / "volumes")
    options, base = deployment.store.storage_options, deployment.store.root
    if model is None:
        return Store(base, options, volumes=volumes)
    base = base.rstrip("/")
    elsewhere = {DATA: f"{base}/{model.data_owner}"}
    return Store(f"{base}/{model.name}", options, volumes=volumes, elsewhere=elsewhere)


def _made_anew(what: str, table: str) -> TableNotFound:
    return TableNotFound(
        f"{what}, which this run is to read: the table was deleted and made anew, brought back from an older backup, "
        f"or another store is meant. Run the steps again from the one that makes {table}."
    )


def _damaged(version: TableVersion, lost: list[str], why: object) -> Damaged:
    said = ", ".join(lost) or str(why).rstrip(".")
    # A file that has its size still is only looked at where it is read, so a write takes it for whole.
    restore = "Restore it from a backup, or" if lost else "Its files were changed: restore them, or delete them and"
    return Damaged(
        version,
        f"version {version.version} of {version.uri} isn't what was written: {said}.",
        f"{restore} run the step that makes {version.table} again, which writes it anew.",
    )


def _check_not_overtaken(current: TableVersion | None, expected: TableVersion | None, uri: str) -> None:
    now, then = (None if version is None else version.version for version in (current, expected))
    if now != then:
        raise Overtaken(
            f"{uri} is at version {now} now, not at {then}: somebody else wrote it. Read it and decide again."
        )


def _name_of(symbol: str) -> str:
    return symbol.replace("^", "@")  # delta-rs panics on a path with ^, and no symbol has a @


def _symbol_of(name: str) -> str:
    return name.replace("^", " ").replace("@", "^")


def _check_root(root: object) -> str:
    text = root.as_posix() if isinstance(root, Path) else root
    cure = None
    if not isinstance(text, str) or not ("://" in text or Path(text).is_absolute()) or text.startswith("file://"):
        cure = "give an absolute path or a URL such as s3://bucket/mlops."
    else:
        cure = delta.unfit_root(text)
    if cure:
        raise StoreError(str(refuse("root", root, cure)))
    return str(text).rstrip("/")


def _check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise refuse(f"metadata[{key!r}]", value, "names and values have to be texts.")
    return dict(metadata or {})
