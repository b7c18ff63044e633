"""The step that searches a grid of a declared model's parameters, scored on the training rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration
from mlops_dagster.steps.declared.checking import resolve
from mlops_dagster.steps.declared.train import run_name, said_of, tags_of
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.report import StepReport, table_summary
from mlops_dagster.steps.search import best_candidates, grid_params, log_search

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
    cache: Any = None,
    progress: Any = None,
) -> StepReport:
    """Score every candidate of a grid by cross-validation on the training rows, and track it in MLflow.

    Parameters
    ----------
    cache, progress
        As for :func:`mlops_dagster.steps.grid_search_results`.

    Raises
    ------
    ParameterError, UserCodeError, SearchError, TableNotFound, StoreError, TrackingError
        The table keeps its last good version; the MLflow run, if it was begun, ends FAILED.
    """
    wanted = resolve(declaration, names.GRID_SEARCH_RESULTS, given)
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))

    from mlops_dagster.ml.search import TIMES
    from mlops_dagster.ml.search_plots import search_pngs
    from mlops_dagster.modeling.search import describe_cv, in_words, make_search, search_results
    from mlops_dagster.modeling.training_set import TrainingSet
    from mlops_dagster.stack.frames import frame_digest

    frame, table = tables.read(names.TRAINING_SET)
    data = TrainingSet.from_table(frame, table.metadata)
    grid, folds, scoring = wanted["grid"], wanted.get("folds"), wanted["scoring"]
    estimator = make_search(declaration, data, grid, folds=folds, scoring=scoring, cache=cache, progress=progress)
    tags = tags_of(declaration, partition, names.GRID_SEARCH_RESULTS, table)
    about = {**said_of(data), "cv": describe_cv(declaration, folds), "scoring": scoring}
    # The run is begun before anything is fitted: a tracking server that is down costs seconds, not a search.
    with tracker.run(f"{run_name(declaration, partition)}-search", origin=origin, tags=tags) as run:
        run.log_params({**about, "preset": wanted.get("preset") or "none", **grid_params(grid)})
        run.log_input(table, table_summary(frame)["columns"])
        run.log_json("grid.json", grid)
        estimator.fit(data.X_train, data.y_train)
        results = search_results(declaration, estimator.cv_results_, grid)
        work = {name: value for name, value in estimator.work_.items() if value}
        plots = search_pngs(in_words(estimator.cv_results_, grid), scoring)
        log_search(run, results, grid, {}, work, plots)
        written = store.write(
            names.GRID_SEARCH_RESULTS,
            partition,
            results.table,
            metadata={
                **{name: str(value) for name, value in about.items()},
                "best_parameters": json.dumps(results.best_parameters),
                "best_score": repr(results.best_score),
                "candidates": str(len(results.table)),
                "failed": str(results.failed),
                "work": json.dumps(work),
                "mlflow_run_id": run.run_id,
                "training_set_digest": table.digest,
            },
        )
    return StepReport(
        step=names.GRID_SEARCH_RESULTS,
        symbol=partition,
        data_version=frame_digest(results.table.drop(columns=[*TIMES])),
        table=written,
        **table_summary(results.table),
        facts={
            "best_parameters": results.best_parameters,
            "best_candidates": best_candidates(results.table),
            "candidates": len(results.table),
            "failed_candidates": results.failed,
            "shared": _shared(estimator),
            "work": work,
            **about,
            "code_version": tags["code_version"],
        },
        inputs=tables.used,
        metrics={"best_score": results.best_score},
        plots=plots,
        mlflow_run_id=run.run_id,
        mlflow_url=run.url,
        model=declaration.name,
    )


def _shared(search: Any) -> str:
    """Say what the candidates had in common that was done only once, or why nothing."""
    if search.plan_ is not None:
        return str(search.plan_)
    return f"nothing: {'; '.join(search.work_['not_shared'])} ({search.work_['fits']:,} fits)"
