"""The step that searches a grid of a model's parameters, scored on the training rows, and what it would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration
from mlops_dagster.steps.checking import resolve
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.report import StepReport
from mlops_dagster.steps.run_search import Searched, run_search
from mlops_dagster.steps.train import run_name, said_of, tags_of

if TYPE_CHECKING:
    from mlops_dagster.modeling.training_set import TrainingSet
    from mlops_dagster.search import SearchPlan, SharedGridSearchCV
    from mlops_dagster.stack.deployment import Plots
    from mlops_dagster.stack.store import Store, TableVersion
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
    plots: Plots = "always",
) -> StepReport:
    """Score every candidate of a grid by cross-validation on the training rows, and track it in MLflow.

    Parameters
    ----------
    engine : Engine, optional
        Where candidates are fitted. Not given: on threads of this process, one per core.
    cache : path or SearchCache, optional
        Keeps what was grown, so that a search that was stopped goes on where it was.
    progress : callable, optional
        Is called with a :class:`mlops_dagster.search.Progress` now and then, from any thread.

    Raises
    ------
    ParameterError, UserCodeError, SearchError, TableNotFound, StoreError, TrackingError
        The table keeps its last good version; the MLflow run, if it was begun, ends FAILED.
    """
    wanted = resolve(declaration, names.GRID_SEARCH_RESULTS, given)
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))

    from mlops_dagster.modeling.search import describe_cv, search_results

    estimator, data, table = _prepared(declaration, wanted, tables, engine=engine, cache=cache, progress=progress)
    grid, folds, scoring = wanted["grid"], wanted.get("folds"), wanted["scoring"]
    where = names.HERE if engine is None else names.SPARK
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
        draws=plots == "always",
    )


def plan_search(
    declaration: Declaration,
    partition: str,
    given: Mapping[str, object],
    *,
    store: Store,
    inputs: Pins | None = None,
) -> SearchPlan:
    """Return what a search would do, after looking at the training set. Some trees are grown to estimate the time.

    Raises
    ------
    ParameterError, UserCodeError, TableNotFound, StoreError
        As for :func:`grid_search_results`.
    """
    wanted = resolve(declaration, names.GRID_SEARCH_RESULTS, given)
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))
    estimator, data, _ = _prepared(declaration, wanted, tables)
    return estimator.plan(data.X_train, data.y_train)


def _prepared(
    declaration: Declaration, wanted: Mapping[str, Any], tables: Inputs, **tools: Any
) -> tuple[SharedGridSearchCV, TrainingSet, TableVersion]:
    from mlops_dagster.modeling.search import make_search
    from mlops_dagster.modeling.training_set import TrainingSet

    frame, table = tables.read(names.TRAINING_SET)
    data = TrainingSet.from_table(frame, table.metadata)
    how = {"folds": wanted.get("folds"), "scoring": wanted["scoring"]}
    return make_search(declaration, data, wanted["grid"], **how, **tools), data, table
