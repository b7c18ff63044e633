"""Train, search and promote scikit-learn models; every tool only calls plain step functions."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlops_dagster.component import Dataset as Dataset
    from mlops_dagster.component import SklearnModel as SklearnModel
    from mlops_dagster.declared import model_definitions as model_definitions
    from mlops_dagster.session import Session as Session

# MLflow's client sends usage data unless it is told not to before it is imported. Whoever wants that sets it to false.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The addresses that it prints, after one more request each, open MLflow's view for language models.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

__version__ = "0.1.0"

try:
    Path.home()
except RuntimeError:
    # A container may run as a user without a name or home. MLflow and others need one when they are imported.
    os.environ["HOME"] = str(Path(os.environ.get("MLOPS_HOME") or ".mlops").absolute())

# Imported when somebody asks for it: the search works where nothing else is installed, the steps and `mlops` where
# Dagster isn't, and all begin quickly.
_LAZY = {
    "Dataset": "component",
    "Session": "session",
    "SklearnModel": "component",
    "model_definitions": "declared",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        from mlops_dagster.errors import extra_of, needs

        if extra_of(error.name) is None:
            raise
        raise ImportError(needs(f"{__name__}.{name}", error), name=error.name) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
