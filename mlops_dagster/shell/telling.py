"""Telling Dagster what the shell has made, where there is a Dagster that shows the deployment."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.stack.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlops_dagster.stack.tracking import Origin

PATIENCE = 20  # seconds; on a busy machine it takes several to open the database
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
    said: list[str] = []

    def tell() -> None:
        try:
            tell_instance(home, report, origin)
        except Exception as error:  # noqa: BLE001 - a broken database, settings of another version, anything
            said.append(f"{type(error).__name__}: {(redacted(str(error)) or 'no reason given').splitlines()[0][:200]}")

    # A database that is locked is asked again for half a minute; nobody has to wait for that.
    asking = threading.Thread(target=tell, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if asking.is_alive():
        said.append(f"no answer within {PATIENCE} seconds")
    if said:
        _silent.add(home)
        warn(f"Dagster at {home} couldn't be told and doesn't show this step ({said[0]}).")


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
