"""What rules about settings share: how a problem is said, and what an address or a path can't be."""

from __future__ import annotations

import re

from mlops_dagster.stack.secrets import redacted

_LOOPBACK = re.compile(r"^\w+://([^/@]*@)?(localhost|127\.\d+\.\d+\.\d+|\[::1\]|0\.0\.0\.0)([:/]|$)", re.IGNORECASE)
_VOLUME = re.compile(r"/Volumes/[^/]+/[^/]+/[^/]+(/.*)?")


def say(setting: str, value: object, what: str) -> str:
    """Say what is wrong with a setting; a secret in its value isn't repeated."""
    return f"{setting}={redacted(repr(value))}: {what}"


def on_loopback(address: str) -> bool:
    """Return whether an address is one that only this machine can reach.

    Examples
    --------
    >>> on_loopback("http://127.0.0.1:5000"), on_loopback("https://mlflow.example.com")
    (True, False)
    """
    return _LOOPBACK.match(address) is not None


def below_volumes(path: str) -> str | None:
    """Say what is wrong with a path below /Volumes; None if nothing is, or if it is elsewhere.

    Examples
    --------
    >>> below_volumes("/Volumes/main/mlops")
    'a volume is /Volumes/catalog/schema/volume, and a folder in it follows after that'
    """
    if path.rstrip("/") == "/Volumes" or (path.startswith("/Volumes/") and not _VOLUME.fullmatch(path)):
        return "a volume is /Volumes/catalog/schema/volume, and a folder in it follows after that"
    if path.startswith("/Volumes/") and ".." in path.split("/"):
        return "leave out '..'"
    return None
