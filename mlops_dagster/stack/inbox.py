"""The inbox: a folder into which people and programs drop files, and what in it is which partition's rows.

A partition's rows are a file ``KEY.csv`` or ``KEY.parquet``, or all files of one of the two kinds in a folder ``KEY``,
in the order of their names. Hidden files and those that editors and downloads leave behind for a moment are none.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops_dagster.errors import ParameterError, printable
from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.stack.limits import LimitSettings, raise_it

KINDS = (".csv", ".csv.gz", ".parquet")
# Partial downloads and copies, editors' backups and locks. What begins with a dot (rsync, vim, LibreOffice) is hidden.
_PASSING = (
    *(".part", ".partial", ".crdownload", ".download", ".filepart", ".tmp", ".temp", ".swp", ".swo", ".bak", ".lock"),
    *("~", "#"),
)


@dataclass(frozen=True)
class Delivery:
    """One partition's rows in the inbox.

    Attributes
    ----------
    path : str
        What the step that reads them takes as its path: a file, or a glob of all files.
    files : tuple of Path
        In the order in which they are read.
    stamp : str
        Another one when a file is written, replaced or renamed, or one is added or taken away.
    """

    symbol: str
    path: str
    files: tuple[Path, ...]
    stamp: str


def scan_inbox(folder: Path, limits: LimitSettings, called: str) -> tuple[list[Delivery], list[str]]:
    """Return the partitions' files in a folder, and what in it can't be used, a sentence each.

    Nothing is opened. Files that vanish meanwhile are left out.

    Parameters
    ----------
    called : str
        What people call a partition.

    Raises
    ------
    OSError
        If the folder isn't there or can't be listed.
    """
    found: dict[str, list[Delivery]] = {}
    remarks = []
    for entry in sorted(_entries(folder), key=lambda one: one.name):
        try:
            made = _delivery(Path(entry.path), entry.is_dir(), limits)
        except ParameterError as error:
            remarks.append(f"{entry.name} is ignored: its name is no {called} ({str(error).rpartition(': ')[2]})")
        except _UnusableError as error:
            remarks.append(f"{entry.name} is ignored: {error}")
        except FileNotFoundError:
            continue
        except OSError as error:
            remarks.append(f"{entry.name} is ignored: {error.strerror or error}.")
        else:
            found.setdefault(made.symbol, []).append(made)
    for symbol, several in found.items():
        if len(several) > 1:
            names = " and ".join(f"{symbol}/" if "*" in one.path else one.files[0].name for one in several)
            remarks.append(f"{names} are ignored: each says that it is all of {symbol}; leave one of them.")
    return [several[0] for several in found.values() if len(several) == 1], [printable(one) for one in remarks]


class _UnusableError(Exception):
    """Why something in the inbox is nobody's rows."""


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if not name.startswith((".", "~$", "#")) and not name.lower().endswith(_PASSING):
                yield entry


def _kind(name: str) -> str:
    """Return how a file's name ends, as it is written; nothing if it is none of those that count."""
    return next((name[-len(kind) :] for kind in KINDS if name.lower().endswith(kind)), "")


def _delivery(path: Path, is_folder: bool, limits: LimitSettings) -> Delivery:
    if not is_folder:
        if not (kind := _kind(path.name)):
            names = f"none of {', '.join(KINDS)}"
            raise _UnusableError(f"it is {names}{' nor a folder' if not path.suffix else ''}.")
        symbol = check_partition(path.name[: -len(kind)])
        return Delivery(symbol, str(path), (path,), _stamp([path], limits))
    symbol = check_partition(path.name)
    files = [Path(entry.path) for entry in _entries(path) if _kind(entry.name)]
    kinds = {_kind(file.name) for file in files}
    if len(kinds) != 1:
        raise _UnusableError(
            f"the folder holds {'files of ' + ' and '.join(sorted(kinds)) if kinds else 'no files of these yet'}."
        )
    kind = kinds.pop()
    if kind not in KINDS:
        raise _UnusableError(f"write {kind.lower()} instead of {kind}.")
    pattern = f"{glob.escape(str(path))}/*{kind}"
    # What the step will read by this glob, and in its order.
    files = sorted(Path(name) for name in glob.glob(pattern))  # noqa: PTH207 absolute, as in table_sources.py
    if open_ones := [file.name for file in files if file.name.startswith(("~$", "#"))]:
        raise _UnusableError(f"{open_ones[0]} says that a program has it open.")
    return Delivery(symbol, pattern, tuple(files), _stamp(files, limits))


def _stamp(files: list[Path], limits: LimitSettings) -> str:
    seen = hashlib.blake2b(digest_size=6)
    total = 0
    for file in files:
        status = file.stat()
        if not file.is_file():
            raise _UnusableError(f"{file.name} is no regular file.")
        if status.st_size == 0:
            raise _UnusableError(f"{file.name} is empty so far.")
        total += status.st_size
        seen.update(
            f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0".encode("utf-8", "surrogateescape")
        )
    if total > limits.size:
        found = f"{total / 1024**2:,.0f} MiB are more than {limits.mebibytes:,}"
        raise _UnusableError(f"{found}. {raise_it('mebibytes')}")
    return base64.urlsafe_b64encode(seen.digest()).decode()
