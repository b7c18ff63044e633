"""Finding the files of a table on this machine: a path or a glob, and what there is instead of what isn't there."""

from __future__ import annotations

import difflib
import glob
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from mlops_dagster.errors import MlopsError, printable
from mlops_dagster.stack.limits import LimitSettings, raise_it


class SourceError(MlopsError):
    """A table can't be read; the message names its path or source, what was found there, and the cure."""

    exit_status = 2


class OutOfReachError(SourceError):
    """A table can't be read now, for example since the network is down; later it may be."""

    exit_status = 1


def too_large(path: object, what: str, setting: str) -> SourceError:
    """Say that a file is larger than is allowed, and how to allow more."""
    return SourceError(f"path={str(path)!r} has {what}. {raise_it(setting)}")


def find_files(pattern: str, limits: LimitSettings) -> list[Path]:
    """Return the files at a path, or all that match a glob, sorted by name; directories are left out.

    Raises
    ------
    SourceError
        If there are none; the message names what there is.
    """
    if "://" in pattern:
        raise SourceError(f"path={pattern!r} is a URL. Give a path on this machine; copy or mount what it holds.")
    # Absolute in every message: whoever reads it rarely knows the working directory.
    path = Path(pattern).expanduser().absolute()
    if path.is_dir():
        inside = _listing(path, path.name)
        raise SourceError(f"path={str(path)!r} is a directory{inside}. Give a file, or a glob such as {path}/*.csv.")
    if path.exists():
        found = [path]
    elif glob.has_magic(str(path)):
        names = _matching(path, limits, itertools.count(1))
        found = sorted({Path(name) for name in itertools.islice(names, limits.rows + 1)})
        if len(found) > limits.rows:
            raise too_large(path, f"more than {limits.rows:,} files", "rows")
    else:
        raise SourceError(f"path={str(path)!r}: there is no such file. {_nearest(path)}")
    files = [one for one in found if one.is_file()]
    if not files:
        what = f"{printable(str(found[0]))} is no regular file" if found else "no file matches"
        raise SourceError(f"path={str(path)!r}: {what}. {_nearest(path)}")
    return files


def _matching(path: Path, limits: LimitSettings, looked: Iterator[int]) -> Iterator[str]:
    """Yield what a glob matches. glob's own ``**`` follows links, and so never ends where one leads back."""
    if "**" not in path.parts:
        yield from glob.iglob(str(path))  # noqa: PTH207 absolute
        return
    at = path.parts.index("**")
    rest = path.parts[at + 1 :] or ("*",)
    for start in glob.iglob(str(Path(*path.parts[:at]))):  # noqa: PTH207
        for folder, below, _ in os.walk(start):
            if next(looked) > limits.rows:
                raise too_large(path, f"more than {limits.rows:,} folders to look into", "rows")
            below[:] = [name for name in below if not name.startswith(".")]
            yield from _matching(Path(glob.escape(folder), *rest), limits, looked)


def _nearest(path: Path) -> str:
    """Say what there is instead of a file that isn't there."""
    parent = next(one for one in path.parents if one.is_dir())
    if parent != path.parent:
        return f"The nearest directory that exists is {parent}{_listing(parent, path.relative_to(parent).parts[0])}."
    return f"The directory {parent} exists{_listing(parent, path.name)}. Check the name."


def _listing(folder: Path, wanted: str) -> str:
    try:
        names = sorted(one.name + "/" * one.is_dir() for one in folder.iterdir() if not one.name.startswith("."))
    except OSError as error:
        return f" ({error.strerror})"
    alike = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
    shown = [*alike, *(name for name in names if name not in alike)][:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f" and has {printable(', '.join(shown))}{more}" if shown else " and is empty"
