"""The project that came to a cluster with this package. Standard library only: what is missing there is to be said."""

from __future__ import annotations

import importlib
from types import ModuleType

TRAVELLED = "mlops_dagster_project"
"""The package, beside this one on a cluster, that holds the project whose steps run there."""


def travelled() -> ModuleType | None:
    """Return that package where there is one; its ``DEFS`` are the project's declarations."""
    try:
        return importlib.import_module(TRAVELLED)
    except ModuleNotFoundError:
        return None
