"""Tables on a Unity Catalog volume, read from outside of Databricks, where there is no ``/Volumes``."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.delta import StoreError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.files import DirectoryEntry

_LOG_FILE = re.compile(r"\d{20}\..+|_last_checkpoint")
_ATTEMPTS = 3


class VolumeError(StoreError):
    """A volume can't be read through the Files API; the message names the file, the cause and the cure."""


def is_outside(root: str) -> bool:
    """Return whether a path is on a volume that this machine can only reach through the workspace.

    Examples
    --------
    >>> is_outside("/data/mlops")
    False
    """
    if not root.startswith("/Volumes/") or "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return False
    # Not /Volumes itself, which every Mac has: /Volumes/catalog/schema/volume.
    return not Path(*Path(root).parts[:5]).is_dir()


class VolumeCopies:
    """Copies of tables on volumes, brought up to date when asked for.

    Parameters
    ----------
    connect : callable
        Returns a client of the workspace; called when the first file is asked for.
    folder : Path, optional
        Where copies are kept. Not given: a temporary folder of this object's own.
    """

    def __init__(self, connect: Callable[[], WorkspaceClient], folder: Path | None = None) -> None:
        self._connect = connect
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._client: WorkspaceClient | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._folder) if self._folder else 'temporary'!r})"

    def table(self, uri: str, data: Iterable[str] = ()) -> str:
        """Bring the copy of a table's log up to date and return the copy's path.

        Parameters
        ----------
        uri : str
            Where the table is: ``/Volumes/...``.
        data : iterable of str
            Files of the table that are needed, too, relative to it. They never change, so each is fetched once.

        Raises
        ------
        VolumeError
            If they can't be read. A table that isn't there is no error: its copy is empty.
        WorkspaceError
            If there are no credentials.
        """
        return str(local_copy(uri, self._workspace(), self._where(), data))

    def tables(self, folder: str) -> Iterator[str]:
        """Yield the names of the tables directly below a folder of a volume, sorted; each is asked about in turn."""
        client = self._workspace()
        with _volume_errors(f"list {folder}"):
            names = sorted(entry.name for entry in _entries(client, folder) if entry.is_directory and entry.name)
        for name in names:
            with _volume_errors(f"list {folder}"):
                found = any(_log_files(client, f"{folder}/{name}"))
            if found:
                yield name

    def _workspace(self) -> WorkspaceClient:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _where(self) -> Path:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="mlops_volumes_")
            self._folder = Path(self._temporary.name)
        # Two workspaces may have volumes of the same name.
        return self._folder / re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(str(self._workspace().config.host)).netloc)


def local_copy(uri: str, client: WorkspaceClient, folder: Path, data: Iterable[str] = ()) -> Path:
    """Copy a table's log, and those of its data files that are named, below a folder; return the copy's path.

    The log is listed each time, and what is new, changed or gone there is so here. A file appears whole or not at all,
    and a commit never before the one that it follows: others may read the copy meanwhile.
    """
    copy = folder / uri.strip("/")
    with _volume_errors(f"read {uri}"):
        log = copy / "_delta_log"
        there = sorted(_log_files(client, uri), key=lambda entry: str(entry.name))
        names = {entry.name for entry in there}
        for gone in [file for file in log.glob("[0-9_]*") if file.name not in names]:
            gone.unlink(missing_ok=True)
        for entry in there:
            _fetch(client, f"{uri}/_delta_log/{entry.name}", log / str(entry.name), entry)
        wanted = [unquote(path) for path in data]
        listed = {entry.name: entry for entry in _entries(client, uri)} if wanted else {}
        for path in wanted:
            _fetch(client, f"{uri}/{path}", copy / path, listed.get(path))
    return copy


def _log_files(client: WorkspaceClient, uri: str) -> Iterator[DirectoryEntry]:
    for entry in _entries(client, f"{uri}/_delta_log"):
        if not entry.is_directory and _LOG_FILE.fullmatch(entry.name or ""):
            yield entry


def _entries(client: WorkspaceClient, folder: str) -> Iterator[DirectoryEntry]:
    from databricks.sdk.errors import NotFound

    try:
        yield from client.files.list_directory_contents(folder)
    except NotFound:
        return


def _fetch(client: WorkspaceClient, uri: str, copy: Path, entry: DirectoryEntry | None) -> None:
    """Fetch a file unless the copy is as long and as old as what is there."""
    size, modified = (entry.file_size, (entry.last_modified or 0) * 10**6) if entry else (None, 0)
    if entry and copy.is_file() and (copy.stat().st_size, copy.stat().st_mtime_ns) == (size, modified):
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_ATTEMPTS):
        contents: Any = client.files.download(uri).contents
        with contents:
            content = contents.read()
        if size is None or len(content) == size:
            break
    else:
        raise VolumeError(
            f"could not read {uri}: {len(content)} of {size} bytes arrived, {_ATTEMPTS} times. Try again."
        )
    with tempfile.NamedTemporaryFile(dir=copy.parent, prefix=".", delete=False) as unfinished:
        unfinished.write(content)
    os.utime(unfinished.name, ns=(modified, modified))
    Path(unfinished.name).replace(copy)


@contextmanager
def _volume_errors(doing: str) -> Iterator[None]:
    from mlops_dagster.stack.databricks.retry import one_line

    try:
        yield
    except MlopsError:
        raise
    except Exception as error:  # noqa: BLE001 - the SDK's, requests' and Python's own
        raise VolumeError(
            f"could not {doing} through the workspace's Files API: {one_line(error)} ({type(error).__name__}). To read "
            "there, one needs USE CATALOG, USE SCHEMA and READ VOLUME."
        ) from None
