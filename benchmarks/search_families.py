"""What sharing saves beyond grids of forests: boosting, pipelines, pruning, halving; and what threads leave of it.

python benchmarks/search_families.py [part ...] [--runs 5] [--scale 1.0]

Measured as in `grid_search.py`. Both sides of a table have the same two cores and don't refit; scores are compared, and
stages, trees and fits of transformers counted. With a smaller scale there are fewer rows and stages: that is to try it.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import joblib
import numpy as np
from measuring import in_fresh_process, made_rows, measured, median, run_parts, say, spread, table, take_turns
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid

FOLDS = 3


def scores_of(search: Any) -> list[list[float]]:
    return [search.cv_results_[f"split{fold}_test_score"].tolist() for fold in range(FOLDS)]


def fitted(search: Any, small: Any, X: Any, y: Any) -> dict[str, Any]:
    """Fit a search after a small one, which starts processes and imports; return its cost, scores and work."""
    small.fit(X[:200], y[:200])
    with measured() as cost:
        search.fit(X, y)
    work = getattr(search, "work_", {})
    if "split0_test_stages" in search.cv_results_:
        work["trees_asked"] = sum(int(search.cv_results_[f"split{fold}_test_stages"].sum()) for fold in range(FOLDS))
    return {**cost, "scores": scores_of(search), **work}


def score_and_stages(model: Any, X: Any, y: Any) -> dict[str, float]:
    """Score a model that may have stopped early, and say how many stages its own fit takes."""
    return {"score": model.score(X, y), "stages": model.n_iter_}


def either(who: str) -> Any:
    from mlops_dagster.search import SharedGridSearchCV

    return SharedGridSearchCV if who.startswith("shared") else GridSearchCV


def available(modules: dict[str, str]) -> list[str]:
    """Return the names of those that are installed."""
    for name in [name for name, module in modules.items() if not importlib.util.find_spec(module)]:
        say(f"{name} isn't installed: left out")
    return [name for name, module in modules.items() if importlib.util.find_spec(module)]


def compare(costs: dict[str, list[dict[str, Any]]], against: str = "GridSearchCV") -> None:
    """Print a table of the contenders, and how much of the ratio of what was saved is left of the time."""
    ours, *_ = costs
    exact = np.array(costs[ours][0]["scores"])
    rows = []
    for name, its_costs in costs.items():
        scores = np.array(its_costs[0].get("scores", []))
        difference = f"{np.abs(scores - exact).max():.1e}" if scores.shape == exact.shape else "another question"
        ratios = [f"{median(its_costs, what) / median(costs[ours], what):.2f}" for what in ("wall", "cpu")]
        rows.append([name, spread(its_costs, "wall"), spread(its_costs, "cpu"), *ratios, difference])
    table(["search", "wall s", "CPU s", f"wall / {ours}", f"CPU / {ours}", "largest difference of a score"], rows)
    work = costs[ours][0]
    saved = work["trees_asked"] / work["trees_grown"]
    print(f"asked for / grown: {work['trees_asked']:,} / {work['trees_grown']:,} = {saved:.2f}")
    for what in ("wall", "cpu"):
        ratio = median(costs[against], what) / median(costs[ours], what)
        print(f"{what}, {against} / {ours}: {ratio:.2f}, {100 * ratio / saved:.0f} % of that")
    print()


# ------------------------------------------------------------------------------------------------------------- boosting


def booster(family: str) -> tuple[Any, str, str]:
    """Return an estimator on one thread, its parameter for the number of stages, and that for leaves."""
    if family == "xgboost":
        from xgboost import XGBRegressor

        trees = {"grow_policy": "lossguide", "max_depth": 0, "max_leaves": 31}
        return XGBRegressor(n_jobs=1, random_state=0, **trees), "n_estimators", "max_leaves"
    if family == "lightgbm":
        from lightgbm import LGBMRegressor

        return LGBMRegressor(n_jobs=1, random_state=0, verbose=-1), "n_estimators", "num_leaves"
    from sklearn.ensemble import HistGradientBoostingRegressor

    stops = family == "hist, stops early"
    return HistGradientBoostingRegressor(early_stopping=stops, random_state=0), "max_iter", "max_leaf_nodes"


def boosting_grid(family: str, scale: float) -> dict[str, list[Any]]:
    _, stages, leaves = booster(family)
    sizes = [max(number, int(number * scale * 16)) for number in range(1, 6)]
    return {stages: sizes, "learning_rate": [0.03, 0.06, 0.1, 0.2], leaves: [7, 15, 31]}


def search_boosting(who: str, family: str, scale: float) -> dict[str, Any]:
    X, y = made_rows(int(20_000 * scale))
    grid = boosting_grid(family, scale)
    estimator, stages, leaves = booster(family)
    if who.endswith(".cv"):
        own = xgboost_cv if family == "xgboost" else lightgbm_cv
        settings = list(ParameterGrid({"learning_rate": grid["learning_rate"], leaves: grid[leaves]}))
        processes = joblib.Parallel(2)
        processes(joblib.delayed(own)(X[:200], y[:200], setting, 2) for setting in settings[:4])
        with measured() as cost:
            rounds = processes(joblib.delayed(own)(X, y, setting, max(grid[stages])) for setting in settings)
        return {**cost, "rounds": sum(rounds) * FOLDS}
    scoring = score_and_stages if "stops" in family else None
    make = partial(either(who), estimator, cv=FOLDS, n_jobs=2, refit=False, scoring=scoring)
    return fitted(make(grid), make({stages: [1, 2], leaves: [2, 3]}), X, y)


def xgboost_cv(X: Any, y: Any, setting: dict[str, Any], most: int) -> int:
    """Return how many rounds the library's own cross-validation grows on each fold."""
    import xgboost

    how = {**setting, "grow_policy": "lossguide", "max_depth": 0, "nthread": 1}
    folds = list(KFold(FOLDS).split(X))
    seen = xgboost.cv(how, xgboost.DMatrix(X, y), most, folds=folds, early_stopping_rounds=10, as_pandas=False)
    return len(seen["test-rmse-mean"])


def lightgbm_cv(X: Any, y: Any, setting: dict[str, Any], most: int) -> int:
    """Return how many rounds the library's own cross-validation keeps of each fold."""
    import lightgbm

    how = {**setting, "objective": "regression", "num_threads": 1, "verbose": -1}
    stop = lightgbm.early_stopping(10, verbose=False)
    folds = list(KFold(FOLDS).split(X))
    return len(lightgbm.cv(how, lightgbm.Dataset(X, y), most, folds=folds, callbacks=[stop])["valid l2-mean"])


def boosting(runs: int, scale: float) -> None:
    """20,000 rows, 5 numbers of stages x 4 learning rates x 3 numbers of leaves, two processes of one thread each."""
    libraries = available({"xgboost": "xgboost", "lightgbm": "lightgbm"})
    for family in ["hist", "hist, stops early", *libraries]:
        own = [f"{family}.cv"] if family in libraries else []
        print(f"#### {family}\n")
        who = ["shared", "GridSearchCV", *own]
        costs = take_turns(runs, who, "search_boosting", family=family, scale=scale)
        compare(costs)
        for name in own:
            print(f"{name}, which stops early: the best of {costs[name][0]['rounds']:,} rounds or a few more\n")


# ------------------------------------------------------------------------------------------------------------ pipelines


def mixed_rows(rows: int) -> tuple[Any, Any]:
    import pandas as pd

    X, y = made_rows(rows, features=6)
    table_of_all = pd.DataFrame(X, columns=[f"number{column}" for column in range(6)])
    random = np.random.RandomState(1)
    for column in range(6):
        codes = random.randint(30, size=rows)
        table_of_all[f"word{column}"] = np.array([f"w{code}" for code in range(30)], dtype=object)[codes]
        y = y + 0.2 * (codes % 7)
    return table_of_all, y


def pipeline_and_grid(scale: float) -> tuple[Any, dict[str, list[Any]]]:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import (
        MinMaxScaler,
        OneHotEncoder,
        OrdinalEncoder,
        RobustScaler,
        StandardScaler,
        TargetEncoder,
    )

    unknown = {"handle_unknown": "ignore", "sparse_output": False}
    encoders = [
        OneHotEncoder(**unknown),
        OneHotEncoder(min_frequency=0.04, **unknown),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        TargetEncoder(random_state=0),
    ]
    words = [f"word{column}" for column in range(6)]
    steps = [
        ("encode", ColumnTransformer([("words", encoders[0], words)], remainder="passthrough")),
        ("scale", StandardScaler()),
        ("forest", RandomForestRegressor(random_state=0, max_features="sqrt", min_samples_leaf=2)),
    ]
    grid = {
        "encode__words": encoders,
        "scale": [StandardScaler(), MinMaxScaler(), RobustScaler()],
        "forest__n_estimators": [max(number, int(number * scale * 10)) for number in (1, 2, 3, 4)],
    }
    return Pipeline(steps), grid


def make_pipeline_search(who: str, pipeline: Any, grid: Any, n_jobs: int, folder: str) -> Any:
    if who == "GridSearchCV, memory=":
        pipeline = clone(pipeline).set_params(memory=folder)
    if who == "dask-ml":
        from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV

        return DaskGridSearchCV(pipeline, grid, cv=FOLDS, n_jobs=n_jobs, refit=False)
    return either(who)(pipeline, grid, cv=FOLDS, n_jobs=n_jobs, refit=False)


def search_pipeline(who: str, scale: float) -> dict[str, Any]:
    X, y = mixed_rows(int(3_000 * scale))
    pipeline, grid = pipeline_and_grid(scale)
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        make = partial(make_pipeline_search, who, pipeline)
        return fitted(make(grid, 2, large), make({"forest__n_estimators": [1, 2]}, 2, small), X, y)


def count_pipeline_fits(who: str, scale: float) -> dict[str, Any]:
    """Count the fits of transformers, all in this process; their own methods run."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    fits: Counter[str] = Counter()

    def count(its_class: Any, method: str, name: str) -> None:
        real = getattr(its_class, method)

        def counted(*args: Any, **how: Any) -> Any:
            fits[name] += 1
            return real(*args, **how)

        setattr(its_class, method, counted)

    count(ColumnTransformer, "fit_transform", "encoders")
    for scaler in (StandardScaler, MinMaxScaler, RobustScaler):
        count(scaler, "fit", "scalers")
    X, y = mixed_rows(300)
    pipeline, grid = pipeline_and_grid(0.0)
    with tempfile.TemporaryDirectory() as folder:
        make_pipeline_search(who, pipeline, grid, 1, folder).fit(X, y)
    return dict(fits)


def pipeline(runs: int, scale: float) -> None:
    """3 scalers x 4 encoders x forests of 4 sizes; two threads, others two processes (dask-ml: its two threads)."""
    who = ["shared", "GridSearchCV", "GridSearchCV, memory=", *available({"dask-ml": "dask_ml"})]
    compare(take_turns(runs, who, "search_pipeline", scale=scale))
    counts = {name: in_fresh_process("count_pipeline_fits", who=name, scale=scale) for name in who}
    header = ["fits of transformers on 3 folds", "encoders", "scalers after them"]
    table(header, [[name, str(fits["encoders"]), str(fits["scalers"])] for name, fits in counts.items()])
    assert counts["shared"] == {"encoders": 4 * FOLDS, "scalers": 3 * 4 * FOLDS}


# -------------------------------------------------------------------------------------------------------------- pruning


def search_path(who: str, model: str, scale: float) -> dict[str, Any]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.tree import DecisionTreeRegressor

    X, y = made_rows(int((5_000 if model == "tree" else 1_500) * scale))
    tree = DecisionTreeRegressor(random_state=0)
    forest = RandomForestRegressor(10, random_state=0, max_features=0.3)
    estimator: Any = tree if model == "tree" else forest
    some = clone(tree).cost_complexity_pruning_path(X[:1_000], y[:1_000]).ccp_alphas
    alphas = np.quantile(some, np.linspace(0, 0.99, 50)).tolist()
    if who != "bare loop":
        make = partial(either(who), estimator, cv=FOLDS, n_jobs=1, refit=False)
        return fitted(make({"ccp_alpha": alphas}), make({"ccp_alpha": alphas[:2]}), X, y)
    prune_by_hand(estimator, X[:200], y[:200], alphas)
    with measured() as cost:
        scores = prune_by_hand(estimator, X, y, alphas)
    return {**cost, "scores": scores}


def prune_by_hand(estimator: Any, X: Any, y: Any, alphas: Sequence[float]) -> list[list[float]]:
    """Grow once on each fold, and prune for each alpha: the least that can be done."""
    scores = []
    for train, test in KFold(FOLDS).split(X):
        whole = clone(estimator).fit(X[train], y[train])
        X_test, y_test = X[test], y[test]
        scores.append([r2_score(y_test, model.predict(X_test)) for model in pruned(whole, alphas)])
    return scores


def pruned(whole: Any, alphas: Iterable[float]) -> Iterator[Any]:
    for alpha in alphas:
        model = copy.copy(whole)
        if hasattr(model, "estimators_"):
            model.estimators_ = [next(pruned(tree, [alpha])) for tree in whole.estimators_]
        else:
            model.ccp_alpha = alpha
            model._prune_tree()
        yield model


def pruning(runs: int, scale: float) -> None:
    """50 values of ccp_alpha, on one thread: a tree, and a forest of 10."""
    for model in ("tree", "forest"):
        print(f"#### {model}\n")
        costs = take_turns(runs, ["shared", "GridSearchCV", "bare loop"], "search_path", model=model, scale=scale)
        compare(costs)
        bare = median(costs["bare loop"], "cpu") / median(costs["shared"], "cpu")
        print(f"CPU, bare loop / shared: {bare:.2f}\n")


# -------------------------------------------------------------------------------------------------------------- halving


def search_halving(who: str, scale: float) -> dict[str, Any]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingGridSearchCV

    from mlops_dagster.search import SharedHalvingGridSearchCV

    its_class = SharedHalvingGridSearchCV if who == "shared" else HalvingGridSearchCV
    first = max(1, int(8 * scale))
    X, y = made_rows(int(3_000 * scale))
    resource = {"resource": "n_estimators", "factor": 2, "cv": FOLDS, "n_jobs": 2, "refit": False}
    make = partial(its_class, RandomForestRegressor(random_state=0), **resource)
    grid = {"max_features": [0.2, 0.4, 0.6, 0.8], "min_samples_leaf": [1, 2, 4, 8]}
    small = make({"min_samples_leaf": [1, 2]}, min_resources=1, max_resources=2)
    return fitted(make(grid, min_resources=first, max_resources=16 * first), small, X, y)


def halving(runs: int, scale: float) -> None:
    """16 forests by halving over n_estimators; two threads, scikit-learn's two processes."""
    compare(take_turns(runs, ["shared", "HalvingGridSearchCV"], "search_halving", scale=scale), "HalvingGridSearchCV")


# ------------------------------------------------------------------------------------------------------------- overhead

Serve = Callable[[Any, Any, Sequence[Any]], Iterator[Any]]
"""Yields the predictions of each size, of a model that has the largest."""

OVERHEAD_ROWS = {
    "HistGradientBoosting": 6_000,
    "DecisionTree": 8_000,
    "KNeighbors": 9_000,
    "XGBoost": 6_000,
    "LightGBM": 6_000,
}
"""So many that a family takes a few seconds; 1,500 for the others."""


def staged(model: Any, X: Any, sizes: Sequence[int]) -> Iterator[Any]:
    stages, done = model.staged_predict(X), 0
    for size in sizes:
        yield next(islice(stages, size - done - 1, None))
        done = size


def averaged(model: Any, X: Any, sizes: Sequence[int]) -> Iterator[Any]:
    total, done = np.zeros(len(X)), 0
    for size in sizes:
        for estimator, features in zip(
            model.estimators_[done:size], model.estimators_features_[done:size], strict=True
        ):
            total += estimator.predict(X[:, features])
        done = size
        yield total / size


def first_stages(model: Any, X: Any, sizes: Sequence[int]) -> Iterator[Any]:
    for size in sizes:
        fewer = copy.copy(model)
        fewer.estimators_, fewer.estimator_weights_ = model.estimators_[:size], model.estimator_weights_[:size]
        yield fewer.predict(X)


def nearest(model: Any, X: Any, sizes: Sequence[int]) -> Iterator[Any]:
    found = model.kneighbors(X, return_distance=False)
    for size in sizes:
        yield model._y[found[:, :size]].mean(axis=1)


def overhead_families() -> dict[str, tuple[Any, str, list[Any], dict[str, list[Any]], Serve]]:
    """Return of each family an estimator, what it shares, the sizes, what it doesn't share, and how they are served."""
    from sklearn.ensemble import (
        AdaBoostRegressor,
        BaggingRegressor,
        GradientBoostingRegressor,
        HistGradientBoostingRegressor,
    )
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.tree import DecisionTreeRegressor

    sizes, rates = [20, 40, 60, 80, 100], {"learning_rate": [0.05, 0.2]}
    tree = DecisionTreeRegressor(max_depth=4, random_state=0)
    families: dict[str, tuple[Any, str, list[Any], dict[str, list[Any]], Serve]] = {
        "GradientBoosting": (GradientBoostingRegressor(random_state=0), "n_estimators", sizes, rates, staged),
        "HistGradientBoosting": (HistGradientBoostingRegressor(early_stopping=False), "max_iter", sizes, rates, staged),
        "AdaBoost": (AdaBoostRegressor(tree, random_state=0), "n_estimators", sizes, rates, first_stages),
        "Bagging": (BaggingRegressor(random_state=0), "n_estimators", sizes, {"max_samples": [0.5, 0.9]}, averaged),
        "DecisionTree": (
            DecisionTreeRegressor(random_state=0),
            "ccp_alpha",
            np.linspace(0.0, 1e-3, 20).tolist(),
            {"min_samples_leaf": [1, 2]},
            lambda whole, X, alphas: (model.predict(X) for model in pruned(whole, alphas)),
        ),
        "KNeighbors": (KNeighborsRegressor(), "n_neighbors", list(range(5, 45, 5)), {"leaf_size": [20, 30]}, nearest),
    }
    if available({"xgboost": "xgboost"}):
        families["XGBoost"] = (
            *(booster("xgboost")[0], "n_estimators", sizes, rates),
            lambda model, X, sizes: (model.predict(X, iteration_range=(0, size)) for size in sizes),
        )
    if available({"lightgbm": "lightgbm"}):
        families["LightGBM"] = (
            *(booster("lightgbm")[0], "n_estimators", sizes, rates),
            lambda model, X, sizes: (model.predict(X, num_iteration=size) for size in sizes),
        )
    return families


def serve_by_hand(
    estimator: Any, name: str, sizes: list[Any], others: Any, serve: Serve, X: Any, y: Any
) -> list[list[float]]:
    """Fit the largest of each setting, and score all sizes, with nothing around it."""
    scores = []
    for train, test in KFold(FOLDS).split(X):
        of_fold = []
        for setting in ParameterGrid(others):
            largest = min(sizes) if name == "ccp_alpha" else max(sizes)
            model = clone(estimator).set_params(**setting, **{name: largest}).fit(X[train], y[train])
            of_fold.append([r2_score(y[test], predicted) for predicted in serve(model, X[test], sizes)])
        scores.append(of_fold)
    return np.array(scores).reshape(FOLDS, -1).tolist()


def engine_overhead(scale: float, first: str) -> dict[str, Any]:
    """Compare CPU seconds of the search, of a bare loop and of `GridSearchCV`, of all families."""
    costs: dict[str, Any] = {}
    for family, (estimator, name, sizes, others, serve) in overhead_families().items():
        X, y = made_rows(int(scale * OVERHEAD_ROWS.get(family, 1_500)))
        if family == "KNeighbors":
            X = X.astype(np.float64)  # in single precision many distances are equal, and such rows are searched again
        by_hand = partial(serve_by_hand, estimator, name, sizes, others, serve)
        search = either("shared")(estimator, {**others, name: sizes}, cv=FOLDS, refit=False)
        by_hand(X[:300], y[:300])
        clone(search).fit(X[:300], y[:300])
        theirs = either("GridSearchCV")(estimator, {**others, name: sizes}, cv=FOLDS, refit=False)
        work = {"bare": by_hand, "shared": search.fit, "GridSearchCV": theirs.fit}
        for who in sorted(work, key=lambda one: one != first):
            with measured() as cost:
                made = work[who](X, y)
            if who == "bare":
                bare = made
            costs[f"{family} {who}"] = cost["cpu"]
        # The grid's parameters are in alphabetical order in both, the last one changing fastest.
        order = sorted(range(len(bare[0])), key=lambda at: _place(others, name, sizes)[at])
        exact, mine = np.array(bare)[:, order], np.array(scores_of(search))
        costs[f"{family} difference"] = float(np.abs(exact - mine).max())
        assert search.work_["plain_fits"] == 0
    return costs


def _place(others: Any, name: str, sizes: list[Any]) -> list[int]:
    """Return where in the search's results each of the loop's scores stands."""
    candidates = list(ParameterGrid({**others, name: sizes}))
    return [candidates.index({**setting, name: size}) for setting in ParameterGrid(others) for size in sizes]


def overhead(runs: int, scale: float) -> None:
    """The engine against a bare loop that fits the largest and serves the others, one thread, CPU seconds."""
    costs = []
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process begins
    for number in range(runs):
        say(f"run {number + 1} of {runs}: all families")
        costs.append(in_fresh_process("engine_overhead", scale=scale, first=("bare", "shared")[number % 2]))
    del os.environ["OMP_NUM_THREADS"]
    rows = []
    for family in dict.fromkeys(name.rpartition(" ")[0] for name in costs[0]):
        ratio = statistics.median(cost[f"{family} shared"] / cost[f"{family} bare"] for cost in costs)
        both = [spread(costs, f"{family} {who}") for who in ("bare", "shared")]
        times = statistics.median(cost[f"{family} GridSearchCV"] / cost[f"{family} shared"] for cost in costs)
        difference = f"{costs[0][f'{family} difference']:.1e}"
        rows.append([family, *both, f"{ratio:.3f}", f"{times:.1f}", difference])
    last = ["search / bare loop", "GridSearchCV / search", "largest difference of a score"]
    table(["family", "bare loop, CPU s", "search, CPU s", *last], rows)


# -------------------------------------------------------------------------------------------------- threads, processes

TREES = {"small": (400, 200), "large": (12_000, 3)}
"""Rows, and trees of each of 8 forests on 3 folds: five to ten seconds of work."""


def forests_of(size: str, scale: float) -> tuple[Any, Any, Any, dict[str, list[Any]]]:
    from sklearn.ensemble import RandomForestRegressor

    rows, trees = TREES[size]
    X, y = made_rows(rows, features=10)
    trees = max(2, int(trees * scale))
    grid = {"n_estimators": [trees // 2, trees], "max_features": [0.3, 0.5, 0.7, 0.9], "min_samples_leaf": [1, 2]}
    return X, y, RandomForestRegressor(random_state=0), grid


def search_trees(who: str, size: str, scale: float) -> dict[str, Any]:
    from mlops_dagster.search.engine import JoblibEngine, LocalEngine

    X, y, forest, grid = forests_of(size, scale)
    engines = {"2 threads": LocalEngine(2), "2 processes": JoblibEngine(2)}
    how = {"engine": engines[who]} if who in engines else {"n_jobs": 1 if who == "1 thread" else 2}
    make = partial(either("shared"), forest, cv=FOLDS, refit=False, **how)
    return fitted(make(grid), make({"n_estimators": [1, 2], "max_features": [1, 2]}), X, y)


def hold_the_lock(size: str, scale: float) -> dict[str, float]:
    """Measure the share of a search's time, on one thread, that is outside of what trees do without the lock."""
    from sklearn.tree import _classes

    free = [0.0]

    def timed(its_class: Any, *methods: str) -> Any:
        def of(method: str) -> Any:
            real = getattr(its_class, method)

            def call(*args: Any) -> Any:
                began = time.perf_counter()
                try:
                    return real(*args)
                finally:
                    free[0] += time.perf_counter() - began

            return call

        return type(its_class.__name__, (its_class,), {method: of(method) for method in methods})

    # scikit-learn lets go of it for the whole of `build`, and in `predict` for all but the last lookup.
    _classes.DepthFirstTreeBuilder = timed(_classes.DepthFirstTreeBuilder, "build")
    _classes.Tree = timed(_classes.Tree, "predict")
    X, y, forest, grid = forests_of(size, scale)
    search = either("shared")(forest, grid, cv=FOLDS, refit=False)
    clone(search).set_params(param_grid={"n_estimators": [2]}).fit(X, y)
    free[0] = 0.0
    with measured() as cost:
        search.fit(X, y)
    return {"lock": 1 - free[0] / cost["wall"], "tree": 1000 * cost["wall"] / search.work_["trees_grown"]}


def lock(runs: int, scale: float) -> None:
    """Threads and processes with small and with large trees, and what the interpreter lock leaves on more cores."""
    for size in TREES:
        who = ["1 thread", "2 threads", "2 processes", "n_jobs=2"]
        costs = take_turns(runs, who, "search_trees", size=size, scale=scale)
        held = [in_fresh_process("hold_the_lock", size=size, scale=scale) for _ in range(runs)]
        share, milliseconds = median(held, "lock"), median(held, "tree")
        print(f"#### {size} trees: {milliseconds:.1f} ms each\n")
        one = median(costs["1 thread"], "wall")
        rows = [
            [name, spread(its, "wall"), spread(its, "cpu"), f"{one / median(its, 'wall'):.2f}"]
            for name, its in costs.items()
        ]
        table(["engine", "wall s", "CPU s", "times as fast as one thread"], rows)
        assert all(np.array_equal(its[0]["scores"], costs["1 thread"][0]["scores"]) for its in costs.values())
        # Amdahl's law: what is done under the lock is done by one thread at a time.
        speedups = [f"{1 / (share + (1 - share) / cores):.1f}" for cores in (2, 16, 64)]
        print(f"one thread holds the lock for {100 * share:.1f} % of its time ({spread(held, 'lock')})")
        print(f"threads can be as many times as fast on 2, 16 and 64 cores: {', '.join(speedups)}\n")


PARTS: dict[str, Callable[..., None]] = {
    part.__name__: part for part in (boosting, pipeline, pruning, halving, overhead, lock)
}

if __name__ == "__main__":
    scale = {"type": float, "default": 1.0, "help": "of rows and stages"}
    run_parts(__doc__, PARTS, globals(), runs=5, scale=scale)
