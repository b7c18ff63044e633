"""What a run of a model may be given, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import function_of
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.parameters import Pipeline, by_step, check_parameters

if TYPE_CHECKING:
    from mlops_dagster.modeling.metrics import Metric


def resolve(declaration: Declaration, step: str, given: Mapping[str, object]) -> dict[str, Any]:
    """Return a step's parameters, the declaration's where none is given, after looking at what the estimator takes.

    Raises
    ------
    ParameterError
        For an unknown name, a bad value, or one that the estimator itself would refuse.
    """
    found = names.resolve(declaration, step, given)
    if step == names.TRAINED_MODEL:
        from mlops_dagster.modeling.estimators import narrowed_parameters

        check_parameters(narrowed_parameters(declaration), {**found, **given})
    if step == names.GRID_SEARCH_RESULTS:
        from mlops_dagster.modeling.search import check_scoring, grid_of

        if found.get("grid") is not None:
            if given.get("preset") is not None:
                raise refuse("preset", given["preset"], "give a preset or a grid, not both.")
            del found["preset"]
        found["grid"] = grid_of(declaration, found.get("preset"), found.get("grid"))
        check_scoring(declaration, found["scoring"])
    return found


def check_run(declaration: Declaration, pipeline: Pipeline, given: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Check all that a run of a pipeline is given, and return what each of its steps takes.

    Raises
    ------
    ParameterError
        For a parameter that no step of the pipeline knows, and as :func:`resolve` says.
    """
    taken = by_step(pipeline, given)
    for step, parameters in taken.items():
        resolve(declaration, step, parameters)
    return taken


def metrics_of(declaration: Declaration) -> list[Metric]:
    """Return the declared metrics, the first of which is what matters most."""
    from mlops_dagster.modeling.metrics import metric_of

    return [metric_of(said, declaration, function_of(declaration, said)) for said in declaration.metrics]
