"""Telling Dagster what the shell has made, where there is a Dagster that shows the deployment.

What belongs here: which Dagster that is, and that nothing which goes wrong there stops a command. What doesn't: what is
told (`instance.py`, which alone imports dagster).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.stack.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlops_dagster.stack.tracking import Origin

_silent: set[Path] = set()  # the homes that couldn't be told: once said is enough


def tell_dagster(settings: Any, report: Any, origin: Origin, warn: Callable[[str], None]) -> None:
    """Tell the deployment's Dagster of a step; whatever goes wrong is a warning."""
    home = dagster_home(settings)
    if home is None or home in _silent:
        return
    try:
        from mlops_dagster.instance import tell_instance
    except ModuleNotFoundError:  # Dagster isn't installed here
        return
    try:
        tell_instance(home, report, origin)
    except Exception as error:  # noqa: BLE001 - a broken or locked database, settings of another version, anything
        _silent.add(home)
        why = " ".join(redacted(str(error)).split())[:200]
        warn(f"Dagster at {home} couldn't be told and doesn't show this step ({type(error).__name__}: {why}).")


def dagster_home(settings: Any) -> Path | None:
    """Return the home of the Dagster that shows a deployment: the environment's, or the one that `mlops init` made.

    A ``DAGSTER_HOME`` that `mlops init` has made for another deployment isn't: its pages would speak of tables that it
    can't read.
    """
    own = settings.home / "dagster"
    given = Path(os.environ.get("DAGSTER_HOME") or own)
    of_another = given.with_suffix(".lock").exists() and given.resolve() != own.resolve()
    home = own if of_another else given
    return home if (home / "dagster.yaml").is_file() and not settings.inside else None
