"""Files behind a URL, through fsspec, within limits; what is shown has no secret."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import needs
from mlops_dagster.stack.file_finding import OutOfReachError, SourceError, too_large
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.secrets import as_cause, redacted
from mlops_dagster.stack.table_files import join
from mlops_dagster.stack.table_form import Form

if TYPE_CHECKING:
    import pandas as pd

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def read_url(url: str, form: Form, limits: LimitSettings) -> tuple[pd.DataFrame, str]:
    """Read a file behind a URL, or all that match a glob, and say where the rows come from."""
    shown = redacted(url)
    with network(url):
        return join(shown, fetched(url, limits), limits, form), shown


def fetched(url: str, limits: LimitSettings) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of files behind a URL, sorted by name."""
    shown, left = redacted(url), limits.size
    system, path = file_system(url)
    names = sorted(map(str, system.glob(path))) if glob.has_magic(path) and "?" not in path else [path]
    if len(names) > limits.rows:
        raise too_large(shown, f"more than {limits.rows:,} files", "rows")
    if not names:
        raise SourceError(f"path={shown!r}: no file matches. Check the URL.")
    for name in names:
        with system.open(name, "rb") as opened:
            content = opened.read(left + 1)
        left -= len(content)
        if left < 0:
            raise too_large(shown, f"more than {limits.mebibytes:,} MiB", "mebibytes")
        yield redacted(name), content


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise SourceError(needs(f"path={redacted(url)!r}", error)) from None
    try:
        found: tuple[Any, str] = url_to_fs(url)
    except (ImportError, ValueError) as error:
        said = redacted(str(error))
        raise SourceError(
            f"path={redacted(url)!r} can't be opened: {said.rstrip('.')}. Install what it names."
        ) from None
    return found


class network:  # noqa: N801 a context manager
    """Whatever a file system behind a URL raises, as an error of ours."""

    def __init__(self, url: str) -> None:
        self.shown = redacted(url)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, FileNotFoundError):
            # fsspec says so of a server that doesn't answer, too.
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                error = error.__cause__
            else:
                raise SourceError(f"path={self.shown!r}: there is no such file. Check the URL.") from None
        if isinstance(error, Exception) and not isinstance(error, SourceError):
            said = redacted(str(error)).rstrip(".") or type(error).__name__
            raise OutOfReachError(
                f"path={self.shown!r} can't be read: {said}. Check network and credentials."
            ) from as_cause(error)
