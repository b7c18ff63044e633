"""The lock that the process of a run holds, which even kill -9 releases: so everybody knows whether it lives.

No process id or clock is involved that was written down, since both may be given to somebody else again.
"""

from __future__ import annotations

import os
import platform
import struct
import sys
import weakref
from contextlib import suppress
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

# struct flock of fcntl.h: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = "hhqqi4x"
# What this process holds. A warm run has taken its lock before it has an instance.
_held: weakref.WeakValueDictionary[str, FileLock] = weakref.WeakValueDictionary()


def hold(instance: dg.DagsterInstance, run_id: str) -> FileLock | None:
    """Take the lock of a run, and clear away those of earlier runs; nothing where the instance has no folder."""
    folder = folder_of(instance)
    if folder is None:
        return None
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.lock"):
        earlier = instance.get_run_by_id(path.name.split("@")[0])
        if earlier is None or earlier.is_finished:
            path.unlink(missing_ok=True)
    return hold_in(folder, run_id)


def hold_in(folder: Path, run_id: str) -> FileLock:
    """Take the lock of a run in the folder of such locks; once more, if this process has it already."""
    if (held := _held.get(run_id)) is not None:
        return held
    # Whoever drops the executor may be another thread.
    lock = FileLock(folder / f"{run_id}@{platform.node()}@{_boot()}.lock", thread_local=False)
    lock.acquire()
    if sys.platform != "win32":
        import fcntl

        # Of this kind the system says which process has it. It is released with the first file of the name that this
        # process closes, and no other process inherits it.
        number = os.open(lock.lock_file, os.O_RDWR)
        fcntl.lockf(number, fcntl.LOCK_EX)
        weakref.finalize(lock, os.close, number)
    _held[run_id] = lock
    return lock


def is_dead(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run had its process on this machine and has it no more."""
    folder = folder_of(instance)
    for path in folder.glob(f"{run_id}@*.lock") if folder else ():
        _, machine, boot = path.stem.split("@")
        # A lock of another machine says nothing here: the folder may be shared. A container has its machine's boot.
        if machine == platform.node() or boot == _boot():
            try:
                FileLock(path, blocking=False).acquire().lock.release()
            except Timeout:
                return False
            return True
    return False


def process_of(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """Return the process of this machine that has the lock of a run, where Linux says so."""
    folder = folder_of(instance)
    for path in folder.glob(f"{run_id}@*.lock") if folder and sys.platform == "linux" else ():
        import fcntl

        with path.open("r+") as stream:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(stream, fcntl.F_GETLK, asked))
        if kind != fcntl.F_UNLCK and process > 0:
            return int(process)
    return None


def folder_of(instance: dg.DagsterInstance) -> Path | None:
    """Return the folder of the locks, unless the instance is in memory alone."""
    return Path(instance.root_directory) / "run_workers" if instance.is_persistent else None


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "unknown"
