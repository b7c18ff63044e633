"""What each Python process of a task starts with: no local checkout and, if need be, I/O that knows /Volumes.

This folder is copied to each task's own folder, where `task.json` says what is asked for.
"""

import builtins
import importlib.machinery
import importlib.metadata
import io
import json
import os
import pathlib
import sys

TASK = json.loads(pathlib.Path(__file__).with_name("task.json").read_text())


class Uploaded:
    """Finds the hidden packages nowhere but in code that was uploaded."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in TASK["hidden_packages"]:
            return None
        places = path if "." in name else [each for each in sys.path if _real(each) not in TASK["hidden_from"]]
        found = importlib.machinery.PathFinder.find_spec(name, places, target)
        if found is None or (found.origin is None and "." not in name):  # an empty folder is no package
            raise ModuleNotFoundError(f"No module named {name!r} (the stand-in hides the local checkout)", name=name)
        return found


def _real(folder):
    return os.path.realpath(folder or os.curdir)


def hide_checkout():
    sys.meta_path.insert(0, Uploaded)
    everything = importlib.metadata.MetadataPathFinder.find_distributions

    def uploaded(*context):
        for distribution in everything(*context):
            folder = getattr(distribution, "_path", None)
            name = str(getattr(folder, "name", "")).partition("-")[0].partition(".")[0]
            hidden = name in TASK["hidden_packages"] and _real(folder.parent) in TASK["hidden_from"]
            if not hidden:
                yield distribution

    importlib.metadata.MetadataPathFinder.find_distributions = staticmethod(uploaded)


def patch_paths():
    """Redirect Python's own I/O. What libraries do below Python isn't reached; a namespace does that."""

    accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 keeps the functions that it was loaded with
    tops = tuple(f"/{name}/" for name in TASK["mounts"])

    def redirected(path):
        if isinstance(path, (str, os.PathLike)):
            plain = os.fspath(path)
            if isinstance(plain, str) and (plain + "/").startswith(tops):
                return TASK["root"] + plain
        return path

    def wrap(module, name, paths=1):
        original = getattr(module, name)

        def wrapper(*arguments, **named):
            changed = [redirected(each) if i < paths else each for i, each in enumerate(arguments)]
            return original(*changed, **named)

        wrapper.__name__ = name
        setattr(module, name, wrapper)
        if getattr(accessor, name, None) is original:
            setattr(accessor, name, staticmethod(wrapper))

    wrap(io, "open")
    builtins.open = io.open
    one = "open stat lstat listdir scandir mkdir remove unlink rmdir access chmod utime"
    for name in one.split():
        wrap(os, name)
    for name in ("rename", "replace", "link"):
        wrap(os, name, 2)


if TASK["hidden_packages"]:
    hide_checkout()
if TASK["mapping"] == "patch":
    patch_paths()
