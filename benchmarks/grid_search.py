"""What the shared grid search costs, against everything else that computes the same, side by side in one run.

python benchmarks/grid_search.py [part ...] [--divide 10] [--runs 3]

Every measurement is a fresh process with warm imports; contenders take turns, and ratios are of medians. The parts are
the names of the functions below `PARTS`; without any, all of them run. Rivals that aren't installed are named and left
out; `make benchmark` installs them into an environment of their own.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from measuring import in_fresh_process, made_rows, measured, median, run_parts, say, spread, table, take_turns

# -------------------------------------------------------------------------------------------- what is searched, by whom


def article_rows() -> tuple[Any, Any]:
    from training_sets import table_of, training_set_of

    from mlops_dagster.spec.project import find_model

    article = find_model("article")
    data = training_set_of(article, table_of(article, "GSPC"))
    return data.X_train, data.y_train


def article_grid(divide: int) -> dict[str, list[Any]]:
    from mlops_dagster.modeling.search import grid_of
    from mlops_dagster.spec.project import find_model

    grid = grid_of(find_model("article"), "article")
    return {**grid, "n_estimators": [max(number // divide, 1) for number in grid["n_estimators"]]}


def forest(**parameters: Any) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(random_state=0, **parameters)


def shared(grid: Any, **how: Any) -> Any:
    from mlops_dagster.search import SharedGridSearchCV

    return SharedGridSearchCV(forest(), grid, cv=3, **how)


def sklearn_search(grid: Any, n_jobs: int | None) -> Any:
    from sklearn.model_selection import GridSearchCV

    return GridSearchCV(forest(), grid, cv=3, n_jobs=n_jobs)


@contextmanager
def joblib_backend(name: str, **how: Any) -> Iterable[None]:
    import joblib

    with joblib.parallel_config(backend=name, **how):
        yield


def bare_loop(grid: Any, X: Any, y: Any) -> None:
    """Grow and score the trees that the grid needs, with nothing around it: the least that can be done."""
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    X, y = X.to_numpy(dtype=np.float32), y.to_numpy()
    # 9 pairs of min_samples_leaf and min_samples_split are 8 in effect; no max_depth binds.
    pairs = {(leaf, max(split, 2 * leaf)) for leaf in grid["min_samples_leaf"] for split in grid["min_samples_split"]}
    marks = sorted(grid["n_estimators"])
    for train, test in KFold(3).split(X):
        X_train, y_train, X_test, y_test = X[train], y[train], X[test], y[test]
        for features in grid["max_features"]:
            for leaf, split in pairs:
                how = {"max_features": features, "min_samples_leaf": leaf, "min_samples_split": split}
                grown = forest(n_estimators=marks[-1], max_depth=max(grid["max_depth"]), **how).fit(X_train, y_train)
                total = np.zeros(len(test))
                for number, tree in enumerate(grown.estimators_, 1):
                    total += tree.predict(X_test, check_input=False)
                    if number in marks:
                        r2_score(y_test, total / number)


def search_article(who: str, divide: int, **_: Any) -> dict[str, Any]:
    X, y = article_rows()
    grid = article_grid(divide)
    warm_up = {**grid, "max_depth": [80], "min_samples_leaf": [3], "min_samples_split": [8], "n_estimators": [1]}
    refit = True
    if who == "bare loop":
        bare_loop({**warm_up, "max_features": [2]}, X, y)
        with measured() as cost:
            bare_loop(grid, X, y)
        return cost
    if who.startswith("shared"):
        refit = "no refit" not in who
        make = lambda grid: shared(grid, n_jobs=int(who.split()[1]), refit=refit)  # noqa: E731
    elif who == "dask-ml":
        from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV

        make = lambda grid: DaskGridSearchCV(forest(), grid, cv=3, n_jobs=2)  # noqa: E731
    else:
        if who == "scikit-learn-intelex":
            from sklearnex import patch_sklearn

            patch_sklearn(verbose=False)
        make = lambda grid: sklearn_search(grid, 1 if "n_jobs=1" in who else 2)  # noqa: E731
    backend: Any = nullcontext()
    if "threads" in who:
        backend = joblib_backend("threading", n_jobs=2)
    elif who == "joblib-spark":
        from joblibspark import register_spark

        os.environ["PYSPARK_PYTHON"] = sys.executable
        open_spark("local[2]")
        register_spark()
        backend = joblib_backend("spark", n_jobs=2)
    with backend:
        make(warm_up).fit(X, y)
        search = make(grid)
        with measured() as cost:
            search.fit(X, y)
    scores = np.array([search.cv_results_[f"split{fold}_test_score"] for fold in range(3)])
    return {**cost, "scores": scores.tolist()}


def open_spark(master: str) -> Any:
    from mlops_dagster.stack.spark import SparkSettings, spark_engine

    engine = spark_engine(SparkSettings(master=master))
    engine.__enter__()  # until the process ends
    from pyspark.sql import SparkSession

    return SparkSession.active()


# ---------------------------------------------------------------------------------------------------------------- parts


def article(runs: int, divide: int) -> None:
    """The article's preset against every other way of computing it on two cores."""
    rivals = ["GridSearchCV n_jobs=1", "GridSearchCV 2 processes", "GridSearchCV 2 threads"]
    for name, module in {
        "dask-ml": "dask_ml",
        "joblib-spark": "joblibspark",
        "scikit-learn-intelex": "sklearnex",
    }.items():
        if importlib.util.find_spec(module):
            rivals.append(name)
        else:
            say(f"{name} isn't installed: left out")
    costs = take_turns(runs, ["shared 1", "shared 2", *rivals], "search_article", divide=divide)
    exact = np.array(costs["shared 1"][0]["scores"])
    ours = median(costs["shared 2"], "wall")
    rows = []
    for name, its_costs in costs.items():
        difference = float(np.abs(np.array(its_costs[0]["scores"]) - exact).max())
        wall = median(its_costs, "wall")
        rows.append(
            [name, spread(its_costs, "wall"), spread(its_costs, "cpu"), f"{wall / ours:.2f}", f"{difference:.1e}"]
        )
    header = ["search", "wall s", "CPU s", "wall / shared 2", "largest difference of a score"]
    table(header, rows)
    cpu = median(costs["GridSearchCV n_jobs=1"], "cpu") / median(costs["shared 1"], "cpu")
    print(f"CPU seconds, GridSearchCV n_jobs=1 / shared 1: {cpu:.2f}\n")


def overhead(runs: int, divide: int) -> None:
    """The engine against a bare loop over the same trees, and two threads against one."""
    who = ["bare loop", "shared 1 no refit", "shared 2 no refit"]
    costs = take_turns(runs, who, "search_article", divide=divide)
    table(["", "wall s", "CPU s"], [[name, spread(costs[name], "wall"), spread(costs[name], "cpu")] for name in who])
    one, two = (median(costs[name], "wall") for name in who[1:])
    say("two processes at once, one thread each: what these cores can give at the most")
    with ThreadPoolExecutor(2) as both:
        for _ in range(runs):
            pair = [both.submit(in_fresh_process, "search_article", who=who[1], divide=divide) for _ in range(2)]
            costs.setdefault("two processes", []).extend(one_of_them.result() for one_of_them in pair)
    loop = median(costs["bare loop"], "cpu")
    print(f"CPU seconds, shared 1 / bare loop: {median(costs[who[1]], 'cpu') / loop:.3f}")
    print(f"wall, one thread / two threads: {one / two:.2f}")
    print(f"the same of two processes that share nothing: {2 * one / median(costs['two processes'], 'wall'):.2f}\n")


def cache(runs: int, divide: int) -> None:
    """A search again, and with one more number of trees."""
    costs = [in_fresh_process("search_again", divide=divide) for _ in range(runs)]
    names = ["first", "unchanged", "one more n_estimators"]
    rows = [
        [name, *(f"{statistics.median(cost[name][what] for cost in costs):.2f}" for what in ("wall", "cpu", "trees"))]
        for name in names
    ]
    table(["search", "wall s", "CPU s", "trees grown"], rows)
    again = statistics.median(cost["unchanged"]["wall"] / cost["first"]["wall"] for cost in costs)
    print(f"wall, unchanged / first: {again:.3f}\n")


def search_again(divide: int) -> dict[str, Any]:
    X, y = article_rows()
    grid = article_grid(divide)
    shared({"n_estimators": [1]}).fit(X, y)
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        more = {**grid, "n_estimators": [*grid["n_estimators"], grid["n_estimators"][-1] * 11 // 10]}
        for name, its_grid in {"first": grid, "unchanged": grid, "one more n_estimators": more}.items():
            search = shared(its_grid, n_jobs=2, cache=folder)
            with measured() as cost:
                search.fit(X, y)
            costs[name] = {**cost, "trees": search.work_["trees_grown"]}
    return costs


def spark(runs: int, divide: int) -> None:
    """Two workers of one core each against two threads."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from mlops_dagster_tests.contracts.spark_servers import spark_master, spark_worker

    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        master = servers.enter_context(spark_master(Path(folder)))
        for number in range(2):
            servers.enter_context(spark_worker(Path(folder), master, f"worker{number}"))
        while master.state()["aliveworkers"] < 2:
            time.sleep(0.5)
        costs: dict[str, list[dict[str, Any]]] = {"two threads": [], "Spark, 2 workers x 1 core": []}
        for run in range(runs):
            for name, where in zip(costs, ("", master.url), strict=True):
                say(f"run {run + 1} of {runs}: {name}")
                costs[name].append(in_fresh_process("search_on", master=where, divide=divide))
    table(["engine", "wall s"], [[name, spread(its_costs, "wall")] for name, its_costs in costs.items()])
    local, cluster = (median(its_costs, "wall") for its_costs in costs.values())
    print(f"wall, Spark / two threads: {cluster / local:.2f}\n")


def search_on(master: str, divide: int) -> dict[str, Any]:
    from mlops_dagster.stack.spark import SparkSettings, spark_engine

    X, y = article_rows()
    grid = article_grid(divide)
    settings = SparkSettings(master=master, conf={"spark.executor.memory": "512m"}) if master else SparkSettings()
    with spark_engine(settings) if master else nullcontext() as engine:
        how = {"engine": engine} if master else {"n_jobs": 2}
        shared({"n_estimators": [1], "max_features": [1, 2]}, **how, refit=False).fit(X, y)  # workers are up
        with measured() as cost:
            shared(grid, **how).fit(X, y)
    return cost


def memory(runs: int, divide: int) -> None:
    """Memory at most, over one forest of the largest size."""
    os.environ["WATCH_MEMORY"] = "1"
    rows = []
    bare = statistics.median(in_fresh_process("hold", who="one forest", candidates=1)["memory"] for _ in range(runs))
    for who in ("shared 2", "GridSearchCV 2 processes", "GridSearchCV 2 threads"):
        for candidates in (4, 16, 32) if who == "shared 2" else (4,):
            say(f"memory: {who}, {candidates} candidates")
            costs = [in_fresh_process("hold", who=who, candidates=candidates) for _ in range(runs)]
            used = median(costs, "memory")
            rows.append([who, str(candidates), f"{used:.0f}", f"{used / bare:.2f}"])
    rows.insert(0, ["one forest", "", f"{bare:.0f}", "1.00"])
    del os.environ["WATCH_MEMORY"]
    table(["", "candidates", "MiB at most", "over one forest"], rows)


def hold(who: str, candidates: int) -> dict[str, Any]:
    X, y = made_rows(10_000)
    leaves = list(range(1, 1 + candidates // 4))
    grid = {"n_estimators": [25, 50, 75, 100], "min_samples_leaf": leaves, "max_features": [0.3]}
    with measured() as cost:
        if who == "one forest":
            forest(n_estimators=100, max_features=0.3).fit(X, y)
        elif who.startswith("shared"):
            shared(grid, n_jobs=2, refit=False).fit(X, y)
        else:
            with joblib_backend("threading", n_jobs=2) if "threads" in who else nullcontext():
                search = sklearn_search(grid, 2)
                search.refit = False
                search.fit(X, y)
    return cost


def mlflow(runs: int, divide: int) -> None:
    """288 candidates into MLflow on SQLite."""
    costs = [in_fresh_process("log_candidates") for _ in range(runs)]
    names = ["fluent API, a run each", "children", "table"]
    fluent = statistics.median(cost[names[0]] for cost in costs)
    rows = []
    for name in names:
        seconds = [cost[name] for cost in costs]
        middle = statistics.median(seconds)
        rows.append([name, f"{middle:.2f} ({min(seconds):.2f}-{max(seconds):.2f})", f"{fluent / middle:.1f}"])
    table(["candidates as", "s", "times faster than fluent"], rows)


def log_candidates() -> dict[str, float]:
    import mlflow
    import pandas as pd
    from sklearn.model_selection import ParameterGrid

    from mlops_dagster.stack.tracking import ChildRun, MlflowTracker, Origin

    candidates = list(ParameterGrid(article_grid(1)))
    metrics = {f"{what}_{name}": 1.0 for what in ("mean", "std") for name in ("test_score", "fit_time", "score_time")}
    metrics |= {f"split{fold}_test_score": 1.0 for fold in range(3)}
    children = [ChildRun(f"candidate {number}", one, metrics) for number, one in enumerate(candidates)]
    table_of_all = pd.DataFrame([{**one, **metrics} for one in candidates])
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        tracker = MlflowTracker("benchmark", uri, state_dir=folder, artifact_location=f"{folder}/artifacts")
        origin = Origin("shell", "benchmark")
        mlflow.set_tracking_uri(uri)
        with tracker.run("warm-up", origin=origin, tags={}) as run:
            run.log_children(children[:2])
            run.log_table("candidates.json", table_of_all[:2])
        mlflow.set_experiment("benchmark")
        with mlflow.start_run(), measured() as cost:
            for child in children:
                with mlflow.start_run(run_name=child.name, nested=True):
                    mlflow.log_params(dict(child.params))
                    mlflow.log_metrics(dict(child.metrics))
        seconds["fluent API, a run each"] = cost["wall"]
        with tracker.run("children", origin=origin, tags={}) as run, measured() as cost:
            run.log_children(children)
        seconds["children"] = cost["wall"]
        with tracker.run("table", origin=origin, tags={}) as run, measured() as cost:
            run.log_table("candidates.json", table_of_all)
        seconds["table"] = cost["wall"]
    return seconds


def curves(runs: int, divide: int) -> None:
    """How the cost grows with rows and with candidates, and what planning takes."""
    rows = []
    of_rows, of_candidates = {}, {}
    for number in (100, 1_000, 10_000, 100_000):
        say(f"curves: {number:,} rows")
        costs = [in_fresh_process("search_rows", rows=number) for _ in range(runs)]
        of_rows[number] = (median(costs, "shared"), median(costs, "forest"))
        rows.append([f"{number:,}", spread(costs, "shared"), spread(costs, "forest")])
    table(["rows", "12 candidates, 3 folds, s", "their largest forest alone, s"], rows)
    rows = []
    for number in (10, 100, 1_000):
        say(f"curves: {number:,} candidates")
        costs = [in_fresh_process("search_candidates", candidates=number) for _ in range(runs)]
        of_candidates[number] = median(costs, "wall")
        rows.append(
            [f"{number:,}", spread(costs, "wall"), f"{median(costs, 'trees'):,.0f}", f"{median(costs, 'asked'):,.0f}"]
        )
    table(["candidates", "s", "trees grown", "trees asked for"], rows)
    plot_curves(of_rows, of_candidates)
    costs = [in_fresh_process("plan_many") for _ in range(runs)]
    print(f"planning 100,000 candidates on 5 folds: {spread(costs, 'wall')} s\n")


def plot_curves(of_rows: dict[int, tuple[float, float]], of_candidates: dict[int, float]) -> None:
    """Draw the curves that docs/performance.md shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.loglog(list(of_rows), [search for search, _ in of_rows.values()], "o-", label="12 candidates on 3 folds")
    left.loglog(list(of_rows), [alone for _, alone in of_rows.values()], "s--", label="their largest forest alone")
    left.set(xlabel="rows", ylabel="seconds on 2 threads")
    left.legend(frameon=False)
    right.loglog(list(of_candidates), list(of_candidates.values()), "o-")
    right.set(xlabel="candidates, 1,000 rows")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    file = Path(__file__).parents[1] / "docs" / "images" / "grid_search_curves.png"
    figure.savefig(file, dpi=100)
    say(f"curves: drawn in {file}")


def search_rows(rows: int) -> dict[str, float]:
    X, y = made_rows(rows)
    grid = {"n_estimators": [5, 10, 20], "max_depth": [40, 80], "min_samples_leaf": [5], "min_samples_split": [2, 10]}
    shared({"n_estimators": [1]}).fit(*made_rows(50))
    with measured() as cost:
        shared(grid, n_jobs=2, refit=False).fit(X, y)
    with measured() as alone:
        forest(n_estimators=20, min_samples_leaf=5, max_depth=80, n_jobs=2).fit(X[: 2 * rows // 3], y[: 2 * rows // 3])
    return {"shared": cost["wall"], "forest": alone["wall"]}


def search_candidates(candidates: int) -> dict[str, float]:
    X, y = made_rows(1_000)
    # 5 numbers of trees and 2 depths share; the rest of the factor are other forests.
    leaves = list(range(1, 1 + candidates // 10))
    grid = {"n_estimators": [4, 8, 12, 16, 20], "max_depth": [40, 80], "min_samples_leaf": leaves}
    shared({"n_estimators": [1]}).fit(*made_rows(50))
    search = shared(grid, n_jobs=2, refit=False)
    with measured() as cost:
        search.fit(X, y)
    return {"wall": cost["wall"], "trees": search.work_["trees_grown"], "asked": search.work_["trees_asked"]}


def plan_many() -> dict[str, Any]:
    X, y = made_rows(500, features=10)
    grid = {
        "max_depth": list(range(5, 25)),
        "max_features": list(range(1, 11)),
        "min_samples_leaf": list(range(1, 11)),
        "min_samples_split": list(range(2, 12)),
        "n_estimators": [10, 20, 30, 40, 50],
    }
    search = shared(grid)
    search.cv = 5
    with measured() as cost:
        search.plan(X, y, measure_seconds=False)
    return cost


PARTS: dict[str, Callable[[int, int], None]] = {
    part.__name__: part for part in (article, overhead, cache, spark, memory, mlflow, curves)
}


if __name__ == "__main__":
    divide = {"type": int, "default": 10, "help": "divide the article's n_estimators by this"}
    run_parts(__doc__, PARTS, globals(), runs=3, divide=divide)
