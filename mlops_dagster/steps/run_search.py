"""A search of any model: run, kept as a table, tracked in MLflow, and reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster.steps.report import StepReport, table_summary

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.modeling.search_results import SearchResults
    from mlops_dagster.search import SharedGridSearchCV
    from mlops_dagster.stack.store import Store, TableVersion
    from mlops_dagster.stack.tracking import Origin, TrackedRun, Tracker
    from mlops_dagster.steps.inputs import Inputs

SEARCH_CACHE = "search-cache"
"""The folder below a deployment's state folder that keeps what searches have grown."""
_BEST_SHOWN = 3
_PARAM_CHARACTERS = 500  # of a grid in MLflow's list of parameters; the whole is in grid.json


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a search is called and what it tries, as its run in MLflow, its table and its report say it.

    Parameters
    ----------
    about : mapping
        What was searched on, and how candidates are scored; it has ``scoring``.
    grid : mapping
        The values to try of each parameter.
    candidates : {"table", "children"}
        Whether MLflow has the candidates as a table of the run, or as child runs.
    engine : {"here", "spark"}
        Where they are fitted.
    logged : mapping
        Parameters of the MLflow run besides these.
    """

    step: str
    partition: str
    run_name: str
    tags: Mapping[str, str]
    about: Mapping[str, Any]
    preset: str | None
    grid: Mapping[str, list[Any]]
    candidates: str
    engine: str
    logged: Mapping[str, Any] = field(default_factory=dict)
    model: str


def run_search(
    searched: Searched,
    estimator: SharedGridSearchCV,
    data: Any,
    table: TableVersion,
    results_of: Callable[[Mapping[str, Any]], SearchResults],
    *,
    tools: tuple[Store, Tracker, Origin, Inputs],
    draws: bool = True,
) -> StepReport:
    """Search, keep the candidates as a table, and track it all in MLflow.

    Parameters
    ----------
    estimator : SharedGridSearchCV
        Does the search.
    data : TrainingSet
        Read from `table`; candidates are scored on its training rows.
    results_of : callable
        From ``cv_results_`` to the results, in the users' words.
    tools : tuple
        Store, tracker, origin, and the tables that are read.
    draws : bool
        Whether there are pictures.
    """
    from mlops_dagster.modeling.search_results import TIMES
    from mlops_dagster.stack.frames import frame_digest

    store, tracker, origin, tables = tools
    about, grid = searched.about, searched.grid
    # The run is begun before the first fit: a tracking server that is down costs seconds, not a search.
    with tracker.run(searched.run_name, origin=origin, tags=searched.tags) as run:
        run.log_params({**about, "preset": searched.preset or "none", **_grid_params(grid), **searched.logged})
        run.log_input(table, table_summary(data.frame)["columns"])
        run.log_files({"grid.json": json.dumps(grid, indent=2)})
        estimator.fit(data.X_train, data.y_train)
        results = results_of(estimator.cv_results_)
        work = {
            name: value for name, value in estimator.work_.items() if value or name not in ("not_shared", "fell_back")
        }
        params = [json.loads(said) for said in results.table["params"]]
        plots: dict[str, bytes] = {}
        if draws:
            from mlops_dagster.modeling.search_plots import search_pngs

            plots = search_pngs({**estimator.cv_results_, "params": params}, about["scoring"])
        fixed = {name: value for name, value in results.forest.items() if name not in grid}
        _log(run, results, grid, fixed, work, plots, searched.candidates)
        written = store.write(
            searched.step,
            searched.partition,
            results.table,
            metadata={
                **{name: str(value) for name, value in about.items()},
                "best_parameters": json.dumps(results.best_parameters),
                "forest": json.dumps(results.forest),
                "best_score": repr(results.best_score),
                "candidates": str(len(results.table)),
                "failed": str(results.failed),
                "preset": searched.preset or "",
                "work": json.dumps(work),
                "engine": searched.engine,
                "mlflow_run_id": run.run_id,
                "training_set_digest": table.digest,
            },
        )
    return StepReport(
        step=searched.step,
        symbol=searched.partition,
        data_version=frame_digest(results.table.drop(columns=[*TIMES])),
        table=written,
        **table_summary(results.table),
        facts={
            "best_parameters": results.best_parameters,
            "best_candidates": _best_candidates(results.table),
            "candidates": len(results.table),
            "failed_candidates": results.failed,
            "trees_grown": work["trees_grown"],
            "trees_asked": work["trees_asked"],
            "work": work,
            **about,
            "shared": str(estimator.plan_),
            "engine": searched.engine,
            "forest": results.forest,
            "code_version": searched.tags["code_version"],
        },
        inputs=tables.used,
        metrics={"best_score": results.best_score},
        plots=plots,
        mlflow_run_id=run.run_id,
        mlflow_url=run.url,
        model=searched.model,
    )


def _grid_params(grid: Mapping[str, list[Any]]) -> dict[str, str]:
    """Return a grid as MLflow's list of parameters shows it; of long lists of values the first ones."""
    texts = {name: ", ".join(map(str, values)) for name, values in grid.items()}
    return {
        f"grid_{name}": text if len(text) <= _PARAM_CHARACTERS else f"{text[:_PARAM_CHARACTERS]}... ({len(grid[name])})"
        for name, text in texts.items()
    }


def _best_candidates(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what people want to know of the best candidates, the best first."""
    best_first = table[table["mean_test_score"].notna()].sort_values("rank_test_score", kind="stable")
    return [_candidate(row) for _, row in best_first.head(_BEST_SHOWN).iterrows()]


def _candidate(row: Any) -> dict[str, Any]:
    """Return what people want to know of a candidate, the grid's parameters first."""
    scores = {"score": row["mean_test_score"], "std": row["std_test_score"]}
    return {**json.loads(row["params"]), **{name: float(f"{score:.6g}") for name, score in scores.items()}}


def _log(
    run: TrackedRun,
    results: SearchResults,
    grid: Mapping[str, list[Any]],
    fixed: Mapping[str, Any],
    work: Mapping[str, Any],
    plots: Mapping[str, bytes],
    candidates: str,
) -> None:
    """Log a finished search; `fixed` is what all candidates have in common."""
    from mlops_dagster.search.growing import SIZE
    from mlops_dagster.stack.tracking import ChildRun

    table = results.table
    run.log_params({f"best_{name}": value for name, value in results.best_parameters.items()})
    counts = {f"work_{name}": value for name, value in work.items() if isinstance(value, int | float)}
    run.log_metrics({"best_score": results.best_score, "failed_candidates": results.failed, **counts})
    files = {f"plots/{name}.png": image for name, image in plots.items()}
    run.log_files({"work.json": json.dumps(dict(work), indent=2).encode(), **files})
    # Two curves: how scores are spread over the grid, and what more trees are worth.
    known = table[table["mean_test_score"].notna()]
    run.log_curve("mean_test_score", zip(known["candidate"], known["mean_test_score"], strict=True))
    if (size := f"param_{SIZE}") in known and known[size].nunique() > 1:
        by_trees = known.groupby(size, as_index=False)["mean_test_score"].max()
        run.log_curve(f"best_score_by_{SIZE}", zip(*(by_trees[name] for name in by_trees), strict=True))
    if candidates == "table":
        # As people read it: the best on top, and what makes it the best on the left.
        leading = ["rank_test_score", "mean_test_score", "std_test_score", *(f"param_{name}" for name in grid)]
        columns = [*leading, *(name for name in table.columns if name not in leading)]
        run.log_table("candidates.json", table.sort_values("rank_test_score", kind="stable")[columns])
        return
    numbers = [name for name in table.columns if name.endswith(("_score", "_time"))]
    width = len(str(len(table) - 1))
    run.log_children(
        [
            ChildRun(
                _child_name(f"{row['candidate']:0{width}}", params := json.loads(row["params"])),
                {**fixed, **params},
                {name: row[name] for name in numbers},
            )
            for row in table.to_dict("records")
        ]
    )


def _child_name(number: str, params: Mapping[str, Any]) -> str:
    """Name a candidate by what it is; MLflow takes 250 characters."""
    return f"{number}: {', '.join(f'{name}={value}' for name, value in params.items())}"[:250]
