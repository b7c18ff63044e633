"""What was grown, kept in a folder, so that no tree is grown twice: not after a crash, not for a larger grid.

An entry is a file of arrays below a folder named after everything its content depends on. It is written beside its
place and then moved there, and opens with a digest of the rest, so that one that is truncated or altered reads as
missing. It holds numbers only: nothing in it is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from numpy.lib.format import read_array, write_array

_MAGIC = b"mlops grid search 1\n"
_SUFFIX = ".unit"
_ATTEMPTS = 10  # to write an entry
_ABANDONED_AFTER = 3600.0  # seconds after which a half-written file belongs to nobody

Arrays = dict[str, npt.NDArray[Any]]


class SearchCache:
    """A folder of what searches have grown.

    Any number of searches may use one folder at the same time. If it can't be written, a search warns once and goes on
    without. Sums that an engine grew in blocks were added up in another order, so that a later search that finds them
    here is equal to 1e-12, not to the last digit.

    Parameters
    ----------
    folder : path
        Made when it is first written to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._warned = False

    def __repr__(self) -> str:
        return f"SearchCache({str(self.folder)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_warned": False}

    def names(self, key: str) -> list[str]:
        """Return the names of the entries below a key."""
        try:
            with os.scandir(self._of(key)) as entries:
                return sorted(entry.name[: -len(_SUFFIX)] for entry in entries if entry.name.endswith(_SUFFIX))
        except OSError:
            return []

    def read(self, key: str, name: str) -> tuple[dict[str, Any], Arrays] | None:
        """Return an entry's facts and arrays; None if there is none that is whole."""
        path = self._of(key) / f"{name}{_SUFFIX}"
        try:
            content = path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + hashlib.sha256().digest_size
        if not content.startswith(_MAGIC) or hashlib.sha256(content[start:]).digest() != content[len(_MAGIC) : start]:
            return None
        try:
            payload = io.BytesIO(content[start:])
            about = json.loads(payload.readline())
            arrays = {array: read_array(payload, allow_pickle=False) for array in about.pop("arrays")}
        except (ValueError, KeyError):
            return None  # of another version
        if about.pop("key", None) != [key, name]:
            return None  # a whole file in another's place
        with contextlib.suppress(OSError):
            os.utime(path)  # what is read is young, see prune
        return about, arrays

    def write(self, key: str, name: str, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Keep an entry, in place of any that was there."""
        payload = io.BytesIO()
        payload.write(json.dumps({**about, "key": [key, name], "arrays": list(arrays)}).encode() + b"\n")
        for array in arrays.values():
            write_array(payload, array, allow_pickle=False)
        content = payload.getvalue()
        path = self._of(key) / f"{name}{_SUFFIX}"
        for attempt in range(_ATTEMPTS):
            try:
                self._put(path, _MAGIC + hashlib.sha256(content).digest() + content)
            except OSError as error:
                # A prune may take the folder away while it is still empty, and while it is being made.
                if isinstance(error, FileNotFoundError | FileExistsError) and attempt < _ATTEMPTS - 1:
                    continue
                if not self._warned:
                    self._warned = True
                    without = "The search goes on without keeping what it grows"
                    warnings.warn(f"{without}: {self.folder} can't be written ({error}).", RuntimeWarning, stacklevel=2)
            return

    def _put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.partial")
        try:
            beside.write_bytes(content)
            beside.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise

    def describe(self) -> list[dict[str, Any]]:
        """Return what is kept, one dict for each key: entries, bytes, and the last use (seconds since 1970)."""
        described: dict[str, dict[str, Any]] = {}
        for path, size, used in self._files():
            one = described.setdefault(
                path.parent.name, {"key": path.parent.name, "entries": 0, "bytes": 0, "used": 0.0}
            )
            one["entries"] += 1
            one["bytes"] += size
            one["used"] = max(one["used"], used)
        return sorted(described.values(), key=lambda one: one["used"], reverse=True)

    def prune(self, older_than_days: float | None = None, max_bytes: int | None = None) -> int:
        """Remove entries, those first that weren't used for longest, and return how many bytes that freed.

        Parameters
        ----------
        older_than_days : float, optional
            Remove what wasn't used for so long.
        max_bytes : int, optional
            Remove until no more than this is left.

        Notes
        -----
        A search that runs meanwhile grows again what it no longer finds.
        """
        now = time.time()
        oldest_first = sorted(self._files(), key=lambda file: file[2])
        left = sum(size for _, size, _ in oldest_first)
        freed = 0
        for path, size, used in oldest_first:
            too_old = older_than_days is not None and now - used > older_than_days * 86_400
            too_much = max_bytes is not None and left > max_bytes
            if too_old or too_much:
                with contextlib.suppress(OSError):
                    path.unlink()
                    left -= size
                    freed += size
        for path in self.folder.glob("*/*/*.partial"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > _ABANDONED_AFTER:
                    path.unlink()
        for folder in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):
                folder.rmdir()  # only empty ones can be
        return freed

    def _of(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        for path in self.folder.glob(f"*/*/*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                yield path, stat.st_size, stat.st_mtime


class MemoryCache(SearchCache):
    """What earlier rounds of the same search have grown, as long as it runs."""

    def __init__(self) -> None:
        super().__init__("")
        self._kept: dict[str, dict[str, tuple[dict[str, Any], Arrays]]] = {}

    def names(self, key: str) -> list[str]:
        """Return the names of the entries below a key."""
        return sorted(self._kept.get(key, ()))

    def read(self, key: str, name: str) -> tuple[dict[str, Any], Arrays] | None:
        """Return an entry's facts and arrays."""
        return self._kept.get(key, {}).get(name)

    def write(self, key: str, name: str, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Keep an entry."""
        self._kept.setdefault(key, {})[name] = dict(about), arrays


def open_cache(cache: SearchCache | str | os.PathLike[str] | None) -> SearchCache | None:
    """Return the cache that a search was given, opened."""
    return SearchCache(cache) if isinstance(cache, str | os.PathLike) else cache
