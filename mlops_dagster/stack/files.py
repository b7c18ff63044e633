"""Files of our own on this machine: written whole or not at all, and what is wrong when the disk refuses."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from pathlib import Path

_CURES = {
    errno.ENOSPC: "Make room there, and run it again; what was written before is whole.",
    errno.EDQUOT: "Make room there, and run it again; what was written before is whole.",
    errno.EROFS: "Make it writable, or set MLOPS_HOME to a folder that is.",
    errno.EACCES: "Give this user the right to use it, or set MLOPS_HOME to another folder.",
    errno.EPERM: "Give this user the right to use it, or set MLOPS_HOME to another folder.",
    errno.ENOTDIR: "A file is where a folder has to be: move it away.",
    errno.ENAMETOOLONG: "Give a shorter path.",
}


def write_whole(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file so that nobody, and no crash, ever sees half of it: beside its place first, and then renamed.

    Parameters
    ----------
    path : Path
        The file; what was there is replaced.
    mode : int, default=0o666
        Who may read it, less the umask.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as stream:
            stream.write(text)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def said_by_the_disk(error: OSError) -> str | None:
    """Say what a disk refused and what helps; None if the error isn't one that users can mend.

    Examples
    --------
    >>> said_by_the_disk(OSError(errno.ENOSPC, "No space left on device", "/data/a"))
    '/data/a: No space left on device. Make room there, and run it again; what was written before is whole.'
    >>> said_by_the_disk(ConnectionResetError(104, "Connection reset by peer"))
    """
    cure = _CURES.get(error.errno or 0)
    where = f"{error.filename}: " if error.filename else ""
    return None if cure is None else f"{where}{error.strerror}. {cure}"
