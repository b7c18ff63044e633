"""The step that searches a grid of a declared model's parameters, scored on the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration
from mlops_dagster.steps.declared.checking import resolve
from mlops_dagster.steps.declared.train import run_name, said_of, tags_of
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.report import StepReport
from mlops_dagster.steps.run_search import Searched, run_search

if TYPE_CHECKING:
    from mlops_dagster.stack.store import Store
    from mlops_dagster.stack.tracking import Origin, Tracker


def grid_search_results(
    declaration: Declaration,
    partition: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
    engine: Any = None,
    cache: Any = None,
    progress: Any = None,
) -> StepReport:
    """Score every candidate of a grid by cross-validation on the training rows, and track it in MLflow.

    Parameters
    ----------
    engine, cache, progress
        As for :func:`mlops_dagster.steps.grid_search_results`.

    Raises
    ------
    ParameterError, UserCodeError, SearchError, TableNotFound, StoreError, TrackingError
        The table keeps its last good version; the MLflow run, if it was begun, ends FAILED.
    """
    wanted = resolve(declaration, names.GRID_SEARCH_RESULTS, given)
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))

    from mlops_dagster.modeling.search import describe_cv, make_search, search_results
    from mlops_dagster.modeling.training_set import TrainingSet

    frame, table = tables.read(names.TRAINING_SET)
    data = TrainingSet.from_table(frame, table.metadata)
    grid, folds, scoring = wanted["grid"], wanted.get("folds"), wanted["scoring"]
    where = names.HERE if engine is None else names.SPARK
    tools: Any = {"engine": engine, "cache": cache, "progress": progress}
    estimator = make_search(declaration, data, grid, folds=folds, scoring=scoring, **tools)
    searched = Searched(
        step=names.GRID_SEARCH_RESULTS,
        partition=partition,
        run_name=f"{run_name(declaration, partition)}-search",
        tags={**tags_of(declaration, partition, names.GRID_SEARCH_RESULTS, table), "engine": where},
        about={**said_of(data), "cv": describe_cv(declaration, folds), "scoring": scoring},
        preset=wanted.get("preset"),
        grid=grid,
        candidates=wanted["candidates"],
        engine=where,
        model=declaration.name,
    )
    return run_search(
        searched,
        estimator,
        data,
        table,
        lambda cv_results: search_results(declaration, cv_results, grid),
        tools=(store, tracker, origin, tables),
    )
