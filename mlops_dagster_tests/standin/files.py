"""The workspace's files: DBFS (API 2.0) and volumes (Files API 2.0), both of them plain folders below the root."""

from __future__ import annotations

import base64
import binascii
import email.utils
import itertools
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlops_dagster_tests.standin.answers import Answer
from mlops_dagster_tests.standin.errors import ApiError, invalid, missing_file, no_such_endpoint
from mlops_dagster_tests.standin.faults import Faults

BLOCK = 1024 * 1024  # of one request, after base64 is undone
READ = BLOCK // 2  # what `read` gives unless told


class Files:
    """Both file systems. `dbfs_enabled` is False in a workspace whose DBFS root is disabled."""

    def __init__(self, root: Path, faults: Faults, dbfs_enabled: bool = True) -> None:
        self.root = root
        self.faults = faults
        self.dbfs_enabled = dbfs_enabled
        self._handles: dict[int, Path] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        for folder in ("dbfs", "Volumes"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def local(self, path: str) -> Path:
        """Return where a `dbfs:/...`, `/...` (DBFS) or `/Volumes/...` path is on this machine."""
        plain = "/" + path.removeprefix("dbfs:").lstrip("/")
        folder = "." if plain == "/Volumes" or plain.startswith("/Volumes/") else "dbfs"
        top = self.root / folder
        found = Path(f"{top}{plain}")
        if ".." in found.parts:
            raise invalid(f"Path must be absolute and without '..': {path}")
        return found

    def _seen(self, path: Path, logical: str) -> bytes:
        content = path.read_bytes()
        fault = self.faults.for_request("truncate", "GET", logical)
        return content if fault is None else content[: fault.size]

    # DBFS 2.0

    def dbfs(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one `/api/2.0/dbfs/...` call; `arguments` are its query or its JSON body."""
        calls: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "create": self._create,
            "add-block": self._add_block,
            "close": self._close,
            "put": self._put,
            "mkdirs": self._mkdirs,
            "delete": self._delete,
            "get-status": self._get_status,
            "list": self._list,
            "read": self._read,
        }
        if operation not in calls:
            raise no_such_endpoint("*", f"/api/2.0/dbfs/{operation}")
        path = arguments.get("path")
        if not self.dbfs_enabled and not str(path).removeprefix("dbfs:").startswith("/Volumes/"):
            refusal = f"Public DBFS root is disabled. Access is denied on path: {path}"
            raise ApiError(403, "PERMISSION_DENIED", refusal)
        if operation not in ("add-block", "close") and not str(path or "").removeprefix("dbfs:").startswith("/"):
            raise invalid(f"Path must be absolute: {path}")
        return calls[operation](arguments)

    def _new(self, arguments: Mapping[str, Any]) -> Path:
        path = self.local(arguments["path"])
        if path.is_dir() or (path.exists() and not arguments.get("overwrite")):
            message = f"A file or directory already exists at the input path {arguments['path']}."
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", message)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _create(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        path = self._new(arguments)
        path.write_bytes(b"")
        with self._lock:
            handle = next(self._numbers)
            self._handles[handle] = path
        return {"handle": handle}

    def _add_block(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        data = _decoded(arguments.get("data"))
        if len(data) > BLOCK:
            raise ApiError(400, "MAX_BLOCK_SIZE_EXCEEDED", "The maximum block size is 1 MB.")
        with self._lock:
            path = self._handles.get(arguments.get("handle", -1))
            if path is None:
                raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"No open handle {arguments.get('handle')}.")
            with path.open("ab") as file:
                file.write(data)
        return {}

    def _close(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            if self._handles.pop(arguments.get("handle", -1), None) is None:
                raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"No open handle {arguments.get('handle')}.")
        return {}

    def _put(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        data = _decoded(arguments.get("contents"))
        if len(data) > BLOCK:
            raise ApiError(400, "MAX_BLOCK_SIZE_EXCEEDED", "The maximum size of contents is 1 MB.")
        self._new(arguments).write_bytes(data)
        return {}

    def _mkdirs(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self.local(arguments["path"]).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            message = f"A file exists where a directory should be: {arguments['path']}"
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", message) from None
        return {}

    def _delete(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        path = self.local(arguments["path"])
        if path.is_dir():
            if any(path.iterdir()) and not arguments.get("recursive"):
                raise ApiError(400, "IO_ERROR", f"{arguments['path']} is a non-empty directory; recursive is false.")
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return {}

    def _get_status(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        path = self.local(arguments["path"])
        if not path.exists():
            raise missing_file(arguments["path"])
        return _status(path, arguments["path"])

    def _list(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        path, logical = self.local(arguments["path"]), arguments["path"].removeprefix("dbfs:")
        if not path.exists():
            raise missing_file(arguments["path"])
        if path.is_file():
            return {"files": [_status(path, logical)]}
        return {"files": [_status(each, f"{logical.rstrip('/')}/{each.name}") for each in sorted(path.iterdir())]}

    def _read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        path = self.local(arguments["path"])
        offset, length = int(arguments.get("offset", 0)), int(arguments.get("length", READ))
        if not path.exists():
            raise missing_file(arguments["path"])
        if path.is_dir():
            raise invalid(f"Cannot read a directory: {arguments['path']}")
        if offset < 0 or length < 0:
            raise invalid(f"offset and length must not be negative, got {offset} and {length}")
        if length > BLOCK:
            raise ApiError(400, "MAX_READ_SIZE_EXCEEDED", f"The maximum read size is {BLOCK} bytes, got {length}.")
        data = self._seen(path, arguments["path"])[offset : offset + length]
        return {"bytes_read": len(data), "data": base64.b64encode(data).decode()}

    # Files API 2.0

    def volumes(self, method: str, kind: str, logical: str, query: Mapping[str, str], content: bytes) -> Answer:
        """Carry out one `/api/2.0/fs/{files,directories}/Volumes/...` call."""
        if not logical.startswith("/Volumes/"):
            raise invalid(f"The Files API knows paths below /Volumes, got {logical}")
        path = self.local(logical.rstrip("/"))
        calls = {
            ("files", "PUT"): lambda: self._upload(path, logical, query, content),
            ("files", "GET"): lambda: self._download(path, logical),
            ("files", "HEAD"): lambda: self._download(path, logical),
            ("files", "DELETE"): lambda: self._delete_file(path, logical),
            ("directories", "PUT"): lambda: self._make_directory(path, logical),
            ("directories", "GET"): lambda: self._directory(path, logical, query),
            ("directories", "HEAD"): lambda: self._directory(path, logical, query),
            ("directories", "DELETE"): lambda: self._delete_directory(path, logical),
        }
        if (kind, method) not in calls:
            raise no_such_endpoint(method, f"/api/2.0/fs/{kind}")
        return calls[kind, method]()

    def _upload(self, path: Path, logical: str, query: Mapping[str, str], content: bytes) -> Answer:
        if path.is_dir() or (path.exists() and query.get("overwrite") != "true"):
            raise ApiError(409, "ALREADY_EXISTS", f"The file being created already exists: {logical}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return Answer(204)

    def _download(self, path: Path, logical: str) -> Answer:
        if not path.is_file():
            raise ApiError(404, "NOT_FOUND", f"The file being accessed is not found: {logical}")
        changed = email.utils.formatdate(path.stat().st_mtime, usegmt=True)
        return Answer(200, self._seen(path, logical), "application/octet-stream", {"last-modified": changed})

    def _delete_file(self, path: Path, logical: str) -> Answer:
        if not path.is_file():
            raise ApiError(404, "NOT_FOUND", f"The file being accessed is not found: {logical}")
        path.unlink()
        return Answer(204)

    def _make_directory(self, path: Path, logical: str) -> Answer:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ApiError(409, "ALREADY_EXISTS", f"A file exists where a directory should be: {logical}") from None
        return Answer(204)

    def _directory(self, path: Path, logical: str, query: Mapping[str, str]) -> Answer:
        if not path.is_dir():
            raise ApiError(404, "NOT_FOUND", f"The directory being accessed is not found: {logical}")
        entries = [
            {
                "path": f"{logical.rstrip('/')}/{each.name}",
                "name": each.name,
                "is_directory": each.is_dir(),
                "file_size": 0 if each.is_dir() else each.stat().st_size,
                "last_modified": int(each.stat().st_mtime * 1000),
            }
            for each in sorted(path.iterdir())
        ]
        start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 1000)
        page: dict[str, Any] = {"contents": entries[start : start + size]}
        if start + size < len(entries):
            page["next_page_token"] = str(start + size)
        return Answer.json(page)

    def _delete_directory(self, path: Path, logical: str) -> Answer:
        if not path.is_dir():
            raise ApiError(404, "NOT_FOUND", f"The directory being accessed is not found: {logical}")
        if any(path.iterdir()):
            raise ApiError(400, "FILES_API_DIRECTORY_IS_NOT_EMPTY", f"The directory is not empty: {logical}")
        path.rmdir()
        return Answer(204)


def _status(path: Path, logical: str) -> dict[str, Any]:
    facts = path.stat()
    size = 0 if path.is_dir() else facts.st_size
    modified = int(facts.st_mtime * 1000)
    return {"path": logical, "is_dir": path.is_dir(), "file_size": size, "modification_time": modified}


def _decoded(data: Any) -> bytes:
    try:
        return base64.b64decode(data or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise invalid("The data is not base64.") from None
