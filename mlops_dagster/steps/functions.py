"""Which function is which step of a model: each is named like its step."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from mlops_dagster.errors import refuse
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.steps import (
    CHAMPION_MODEL,
    DATA,
    GRID_SEARCH_RESULTS,
    PREDICTION_QUALITY,
    PREDICTIONS,
    TRAINED_MODEL,
    TRAINING_SET,
    steps_of,
)

_MODULES = {
    DATA: "data",
    TRAINING_SET: "data",
    TRAINED_MODEL: "train",
    CHAMPION_MODEL: "promote",
    GRID_SEARCH_RESULTS: "search",
    PREDICTIONS: "predict",
    PREDICTION_QUALITY: "predict",
}


def step_function(declaration: Declaration, step: str) -> Callable[..., Any]:
    """Return the function of a model's step; each is named like its step.

    Raises
    ------
    ParameterError
        If the model has no such step.
    """
    known = steps_of(declaration)
    if step not in known:
        raise refuse("step", step, f"{declaration.name} has no such step; there are {', '.join(known)}.")
    function: Callable[..., Any] = getattr(import_module(f"{__package__}.{_MODULES[step]}"), step)
    return function
