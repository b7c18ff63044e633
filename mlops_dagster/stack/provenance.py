"""Which code made a result: the commit it was checked out from, and a version that only real changes change.

Standard library only: every asset asks for its code version while the Dagster code location loads.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

PACKAGE = Path(__file__).parents[1]


def git_commit() -> str | None:
    """Return the commit that this package is checked out from, with "-dirty" appended if tracked files differ.

    None where the package isn't part of a git checkout: installed from a wheel, git missing, no commit yet.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # some repository may be around us, but we aren't one of its files
    return _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def code_url() -> str | None:
    """Return where the last commit that was pushed shows this package in a browser, without a slash at the end.

    None unless the package is part of a git checkout whose branch follows one on GitHub or GitLab.
    """
    inside = _git("ls-files", "--full-name", "--error-unmatch", Path(__file__).name)
    pushed = _git("rev-parse", "--symbolic-full-name", "@{upstream}") if inside else None
    if inside is None or pushed is None or not pushed.startswith("refs/remotes/"):
        return None
    remote, commit = _git("remote", "get-url", pushed.split("/")[2]), _git("rev-parse", pushed)
    # Whatever stands before the host (a user, a token) stays here.
    found = re.fullmatch(r"(?:https?://|ssh://)?(?:[^@/]*@)?([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?/?", remote or "")
    if found is None or commit is None or not any(known in found[1] for known in ("github", "gitlab")):
        return None
    tree = "blob" if "github" in found[1] else "-/blob"
    return f"https://{found[1]}/{found[2]}/{tree}/{commit}/{PurePosixPath(inside).parents[1]}"


def _git(*arguments: str) -> str | None:
    # Variables such as GIT_DIR (set inside of git hooks) would make git look at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 (the arguments are the constants above)
            ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments],  # noqa: S607 (wherever git is)
            cwd=Path(__file__).parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def code_version(*paths: str, libraries: Iterable[str] = ()) -> str:
    """Return a digest of source files of this package that only a change of what they do changes.

    Comments, docstrings, layout and the Python version that reads them don't count.

    Parameters
    ----------
    *paths : str
        Files, or folders for all modules below them, relative to the package: ``modeling/gate.py``.
    libraries : iterable of str
        Installed distributions whose versions count too: ``scikit-learn``.

    Returns
    -------
    str
        Twelve hexadecimal digits.
    """
    return _digest(PACKAGE, paths, libraries)


def _digest(root: Path, paths: Iterable[str], libraries: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        whole = root / path
        for file in sorted(whole.rglob("*.py")) if whole.is_dir() else [whole]:
            digest.update(repr((file.relative_to(root).as_posix(), _shape(ast.parse(file.read_bytes())))).encode())
    for library in libraries:
        digest.update(repr((library, version(library))).encode())
    return digest.hexdigest()[:12]


def _shape(node: Any) -> Any:
    """Return what a syntax tree says; unlike ``ast.dump``, in the same words for every Python version."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12 puts empty pieces into some f-strings
        return ("f", *(_shape(piece) for piece in node.values if getattr(piece, "value", None) != ""))
    if isinstance(node, ast.AST):
        fields = ((name, _shape(value)) for name, value in ast.iter_fields(node))
        return (type(node).__name__, *((name, value) for name, value in fields if value is not None and value != []))
    if isinstance(node, list):
        return [_shape(item) for item in node if not _does_nothing(item)]
    return node


def _does_nothing(node: Any) -> bool:
    """Whether this is a docstring, or any other text that stands there as a statement."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
