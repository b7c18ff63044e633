"""The step of the search pipelines: a grid of candidates, scored on the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster import grids, pipelines
from mlops_dagster.spec.steps import HERE, SPARK
from mlops_dagster.stack.provenance import git_commit
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.report import StepReport, step_code_version
from mlops_dagster.steps.run_search import Searched, run_search

if TYPE_CHECKING:
    from mlops_dagster.ml.recipes import TrainingSet
    from mlops_dagster.search import SearchPlan
    from mlops_dagster.stack.store import Store, TableVersion
    from mlops_dagster.stack.tracking import Origin, Tracker

SEARCH_CACHE = "search-cache"
"""The folder below a deployment's state folder that keeps what searches have grown."""


def grid_search_results(
    symbol: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
    engine: Any = None,
    cache: Any = None,
    progress: Any = None,
    pipeline: pipelines.Pipeline = pipelines.SEARCH_MODEL,
) -> StepReport:
    """Score every candidate of a grid by cross-validation on the symbol's training rows, and track it in MLflow.

    Parameters
    ----------
    given : mapping
        ``preset`` or ``grid``, ``cv``, ``folds`` and the others of `pipelines.SEARCH`.
    store : Store
        Holds the table `training_set`; gets the table: one row per candidate, with the best parameters, the score, the
        scheme and the work as its metadata.
    tracker : Tracker
        Gets one run with the grid, the candidates, the best parameters, what was grown, and plots.
    engine : Engine, optional
        Where trees grow. Not given: on threads of this process, one per core.
    cache : path or SearchCache, optional
        Keeps what was grown, so that a search that was stopped goes on where it was.
    progress : callable, optional
        Is called with a :class:`mlops_dagster.search.Progress` now and then, from any thread.
    pipeline : Pipeline, optional
        Whose last step it is, which gives the table its name.

    Returns
    -------
    StepReport
        Its data version is a digest of all candidates and scores; times don't count.

    Raises
    ------
    ParameterError, TableNotFound, SearchError, StoreError, TrackingError
        The table keeps its last good version; the MLflow run, if it was begun, ends FAILED.
    """
    tables = Inputs(symbol, store, inputs)
    data, search, table = _read(symbol, given, tables)

    from mlops_dagster.ml.search import describe_cv, make_search
    from mlops_dagster.modeling.search_results import to_search_results

    step = pipeline.steps[-1].name
    version = step_code_version(step)
    about = {
        "recipe": data.recipe,
        "horizon": data.horizon,
        "test_size": data.test_size,
        "cv": describe_cv(data, search),
        "scoring": search.scoring,
    }
    searched = Searched(
        step=step,
        partition=symbol,
        run_name=f"{symbol}-{data.recipe}-search",
        tags={
            "pipeline": pipeline.name,
            "symbol": symbol,
            "recipe": data.recipe,
            "data_version": table.digest,
            "training_set_version": str(table.version),
            "code_version": version,
            "git_commit": git_commit() or "unknown",
        },
        about=about,
        preset=search.preset,
        grid=search.grid,
        candidates=search.candidates,
        engine=HERE if pipeline is pipelines.SEARCH_MODEL else SPARK,
        logged={"folds": search.folds, **{f"fixed_{name}": value for name, value in search.forest.items()}},
    )
    return run_search(
        searched,
        make_search(data, search, engine=engine, cache=cache, progress=progress),
        data,
        table,
        lambda cv_results: to_search_results(cv_results, search.forest),
        tools=(store, tracker, origin, tables),
    )


def spark_grid_search_results(
    symbol: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    engine: Any,
    inputs: Pins | None = None,
    cache: Any = None,
    progress: Any = None,
) -> StepReport:
    """Do what :func:`grid_search_results` does on Spark, and keep it as the table `spark_grid_search_results`."""
    tools: Any = {"store": store, "tracker": tracker, "origin": origin, "inputs": inputs, "engine": engine}
    how: Any = {"cache": cache, "progress": progress, "pipeline": pipelines.CLUSTER_SEARCH_MODEL}
    return grid_search_results(symbol, given, **tools, **how)


def plan_search(symbol: str, given: Mapping[str, object], *, store: Store, inputs: Pins | None = None) -> SearchPlan:
    """Return what a search would do, after looking at the training set. Some trees are grown to estimate the time."""
    from mlops_dagster.ml.search import make_search

    data, search, _ = _read(symbol, given, Inputs(symbol, store, inputs))
    return make_search(data, search).plan(data.X_train, data.y_train)


def _read(symbol: str, given: Mapping[str, object], tables: Inputs) -> tuple[TrainingSet, grids.Search, TableVersion]:
    pipelines.check_symbol(symbol)
    # What is wrong with any recipe is refused before anything is read.
    grids.resolve_search("honest", given)

    from mlops_dagster.ml.recipes import TrainingSet

    frame, table = tables.read("training_set")
    data = TrainingSet.from_table(frame, table.metadata)
    return data, grids.resolve_search(data.recipe, given), table
