"""What the code of this process was loaded from, and whether it has changed since."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mlops_dagster.spec.project import defs_folder
from mlops_dagster.stack.deployment_files import deployment_folders


class LoadedCode:
    """The files of modules and packages that are developed here, of declarations, deployments and `.env`.

    Of installed packages the folder is looked at, which every installation changes.
    """

    def __init__(self) -> None:
        self._changed: dict[str, int] = {}

    def learn(self, since: int) -> None:
        """Remember what has been loaded since a time, in nanoseconds."""
        files = (getattr(one, "__file__", None) or "" for one in list(sys.modules.values()))
        developed = {file for file in files if not file.startswith(_elsewhere())}
        for file in {*developed, *_installed(), *_own()} - self._changed.keys():
            at = _changed_at(file)
            # What was written meanwhile may have been read before or after: then it counts as changed.
            self._changed[file] = at if at < since else -1

    def has_changed(self) -> bool:
        """Whether a file has changed since it was loaded, is gone, or is new where some were loaded from."""
        own = set(_own())
        return not own <= self._changed.keys() or any(_changed_at(one) != at for one, at in self._changed.items())


def _installed() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]


def _elsewhere() -> tuple[str, ...]:
    return (*_installed(), sysconfig.get_paths()["stdlib"])


def _own() -> Iterable[str]:
    """Yield the files that somebody may be working on."""
    yield from (".env", os.environ.get("MLOPS_DEPLOYMENT", ""))
    packages = [one for name, one in list(sys.modules.items()) if "." not in name]
    folders = [Path(where) for one in packages for where in getattr(one, "__path__", ()) if where]
    developed = [folder for folder in folders if not str(folder).startswith(_elsewhere())]
    for folder in {*developed, Path(__file__).parent, defs_folder(), *deployment_folders()}:
        for where, _, names in os.walk(folder):
            yield from (f"{where}/{name}" for name in names if name.endswith((".py", ".yaml", ".yml")))


def _changed_at(file: str) -> int:
    with suppress(OSError):
        return os.stat(file).st_mtime_ns  # noqa: PTH116 (five times as quick)
    return 0
