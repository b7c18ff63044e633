"""Engines: the local one, ones that cut groups into blocks, and a single forest grown on any of them."""

import itertools
import pickle
import queue
import random
import re
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.utils.validation import check_is_fitted

from mlops_dagster.modeling.digest import model_digest
from mlops_dagster.search import LocalEngine, SharedGridSearchCV, grow_forest
from mlops_dagster_tests.search.comparing import TIMES, assert_equal_results

FOREST = RandomForestRegressor(random_state=0)
# 100 and 140 trees: more than one batch, and more than one block on the engines below.
GRID = {"n_estimators": [3, 100, 140], "max_depth": [2, 6, None]}


class ShuffledThreads:
    """Runs units in random order on eight threads, cut into blocks."""

    cuts_groups = True
    slots = 8

    def __init__(self, seed=0):
        self.order = random.Random(seed)
        self.units = 0

    def run(self, units, data, receive):
        numbers = list(range(len(units)))
        self.units += len(units)
        self.order.shuffle(numbers)

        def work(number):
            for result in units[number].run(data):
                receive(number, result)

        with ThreadPoolExecutor(self.slots) as pool:
            list(pool.map(work, numbers))


class Processes:
    """Runs units in other processes: whatever goes in and comes out is pickled."""

    cuts_groups = True
    slots = 2

    def run(self, units, data, receive):
        packed = pickle.dumps(data)
        with ProcessPoolExecutor(self.slots) as pool:
            for number, results in enumerate(
                pool.map(run_elsewhere, [pickle.dumps(unit) for unit in units], [packed] * len(units))
            ):
                for result in pickle.loads(results):
                    receive(number, result)


def run_elsewhere(unit, data):
    return pickle.dumps(list(pickle.loads(unit).run(pickle.loads(data))))


def search(rows, engine=None, grid=GRID, forest=FOREST, **arguments):
    return SharedGridSearchCV(clone(forest), grid, **{"cv": 2, "engine": engine, **arguments}).fit(*rows)


def assert_close(mine, theirs):
    """Compare two searches of which one adds up in another order: the last digit may differ."""
    assert list(mine.cv_results_) == list(theirs.cv_results_)
    for key, expected in theirs.cv_results_.items():
        if key in TIMES or key.startswith(("param", "rank")):
            continue
        np.testing.assert_allclose(mine.cv_results_[key], expected, rtol=1e-12, atol=1e-15, err_msg=key)
    mine_means, their_means = mine.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"]
    for one in range(len(their_means)):
        for other in range(len(their_means)):
            if their_means[one] - their_means[other] > 1e-12 * abs(their_means[one]):
                assert mine_means[one] > mine_means[other]
                assert mine.cv_results_["rank_test_score"][one] < mine.cv_results_["rank_test_score"][other]


# ----------------------------------------------------------------------------------------------------- the local one


@pytest.mark.parametrize("n_jobs", [1, 2, 5, -1, None])
def test_the_answer_does_not_depend_on_n_jobs(rows, n_jobs):
    grid = {"n_estimators": [3, 40], "max_depth": [2, 6, None], "max_features": [1, 3]}
    theirs = GridSearchCV(FOREST, grid, cv=2).fit(*rows)
    mine = search(rows, grid=grid, n_jobs=n_jobs)
    assert_equal_results(mine.cv_results_, theirs.cv_results_)
    assert model_trees(mine.best_estimator_) == model_trees(theirs.best_estimator_)
    assert mine.work_["fell_back"] == {}


def test_no_jobs_at_all(rows):
    with pytest.raises(ValueError, match="n_jobs == 0"):
        search(rows, n_jobs=0)


def threads_of_searches():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grid-search")]


@pytest.mark.parametrize("engine", [None, LocalEngine(2)])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_whatever_is_raised_stops_everything(rows, grown, engine, error):
    def progress(_):
        if grown.trees >= 64:
            raise error("enough")

    with pytest.raises(error, match="enough"):
        search(rows, engine, {"n_estimators": [2000], "max_features": [1, 2, 3, 4]}, progress=progress)
    assert threads_of_searches() == []
    # Of 16,000: what was asked for, and what two threads had in hand (32 trees each).
    assert grown.take() <= 64 + 4 * 32


@pytest.mark.parametrize("engine", [None, LocalEngine(2)])
def test_a_candidate_that_fails_is_named_at_once(rows, grown, engine):
    grid = [{"n_estimators": [2000], "max_features": [1, 2, 3]}, {"max_depth": [0]}]
    with pytest.raises(sklearn.utils._param_validation.InvalidParameterError, match="max_depth") as raised:
        search(rows, engine, grid, error_score="raise")
    if hasattr(raised.value, "__notes__"):
        assert "candidate 3: {'max_depth': 0}" in raised.value.__notes__[0]
    assert grown.take() <= 4 * 32  # not 12,000
    assert threads_of_searches() == []


def test_a_real_interrupt(tmp_path):
    import signal
    import subprocess
    import sys

    script = """
import numpy as np
from sklearn.ensemble import RandomForestRegressor
from mlops_dagster.search import SharedGridSearchCV
X = np.random.RandomState(0).rand(2000, 5)
search = SharedGridSearchCV(RandomForestRegressor(random_state=0), {"n_estimators": [5000], "max_features": [1, 2, 3]},
                            n_jobs=2, progress=lambda progress: print("going", flush=True))
search.fit(X, X[:, 0])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "going\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)  # the search takes many minutes
    assert process.returncode != 0
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_warning_filters_are_left_as_they_were(rows):
    # scikit-learn changes them for every tree, and threads put them back in any order.
    before = list(warnings.filters)
    search(rows, n_jobs=8, grid={"n_estimators": [100], "max_features": [1, 2, 3, 4]}, refit=False)
    assert list(warnings.filters) == before


@pytest.mark.parametrize("engine", [LocalEngine(2), LocalEngine(1)])
def test_settings_of_the_caller_hold_on_every_thread(rows, engine):
    seen = []

    def scorer(estimator, X, y):
        seen.append(sklearn.get_config()["assume_finite"])
        return estimator.score(X, y)

    with sklearn.config_context(assume_finite=True):
        search(rows, engine, {"n_estimators": [2, 3], "max_features": [1, 2]}, scoring=scorer)
    assert set(seen) == {True}


# ------------------------------------------------------------------------------------------- engines that cut groups


@pytest.mark.parametrize("seed", range(2))
def test_blocks_in_any_order(rows, seed):
    engine = ShuffledThreads(seed)
    mine = search(rows, engine)
    assert mine.work_["units"] > 2  # two groups, one per fold, were cut
    assert mine.work_["fell_back"] == {}
    assert_close(mine, GridSearchCV(FOREST, GRID, cv=2).fit(*rows))
    assert model_trees(mine.best_estimator_) == model_trees(clone(FOREST).set_params(**mine.best_params_).fit(*rows))


def test_blocks_grow_what_one_piece_grows(rows, grown):
    whole = search(rows, refit=False).work_["trees_grown"]
    assert grown.take() == whole
    assert search(rows, ShuffledThreads(), refit=False).work_["trees_grown"] == grown.take() == whole


@pytest.mark.parametrize("forest", [ExtraTreesClassifier(random_state=0), RandomForestClassifier(random_state=1)])
def test_blocks_of_classifiers(classes, forest):
    grid = {"n_estimators": [7, 90], "max_depth": [3, None], "criterion": ["gini", "entropy"]}
    arguments = {"scoring": ["neg_log_loss", "accuracy"], "refit": False, "return_train_score": True, "cv": 2}
    mine = search(classes, ShuffledThreads(), grid, forest, **arguments)
    theirs = GridSearchCV(clone(forest), grid, **arguments).fit(*classes)
    for key, expected in theirs.cv_results_.items():
        if "neg_log_loss" in key and "rank" not in key:
            np.testing.assert_allclose(mine.cv_results_[key], expected, rtol=1e-12, atol=1e-15)


def test_other_processes(rows):
    mine = search(rows, Processes())
    assert mine.work_["fell_back"] == {}
    assert_close(mine, GridSearchCV(FOREST, GRID, cv=2).fit(*rows))


def test_other_processes_and_the_unusual(rows):
    # Frames, weights, failing candidates, plain fits, several metrics.
    X, y = rows
    frame = pd.DataFrame(X, columns=list("abcd"))
    grid = [GRID, {"max_features": [0], "n_estimators": [2]}, {"warm_start": [True], "n_estimators": [2]}]
    arguments = {"scoring": ["r2", "neg_mean_squared_error"], "refit": "r2", "cv": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = np.random.RandomState(0).rand(len(y))
        theirs = GridSearchCV(FOREST, grid, **arguments).fit(frame, y, sample_weight=weights)
        mine = SharedGridSearchCV(FOREST, grid, engine=Processes(), **arguments).fit(frame, y, sample_weight=weights)
    for key in ("mean_test_r2", "std_test_neg_mean_squared_error"):
        np.testing.assert_allclose(mine.cv_results_[key], theirs.cv_results_[key], rtol=1e-10)
    assert mine.work_["plain_fits"] == 4


def test_other_estimators_on_an_engine(rows):
    mine = search(rows, Processes(), {"alpha": [0.1, 1.0, 10.0]}, Ridge())
    assert_equal_results(
        mine.cv_results_, GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=2).fit(*rows).cv_results_
    )
    assert mine.work_["plain_fits"] == 6


def test_what_blocks_left_in_the_cache_serves_everybody(rows, tmp_path, grown):
    search(rows, ShuffledThreads(), refit=False, cache=tmp_path)
    grown.take()
    mine = search(rows, refit=False, cache=tmp_path)
    assert grown.take() == 0
    assert_close(mine, GridSearchCV(FOREST, GRID, cv=2, refit=False).fit(*rows))
    more = {**GRID, "n_estimators": [3, 50, 100, 140, 170]}
    found = search(rows, ShuffledThreads(1), more, refit=False, cache=tmp_path)
    assert_close(found, GridSearchCV(FOREST, more, cv=2, refit=False).fit(*rows))


# -------------------------------------------------------------------------------------------------------- one forest


def model_trees(forest):
    """Return what a forest's trees are, as bytes."""
    trees = []
    for tree in forest.estimators_:
        state = tree.tree_.__getstate__()
        fields = [state["nodes"][field].tobytes() for field in state["nodes"].dtype.names]
        trees.append((tree.random_state, repr(tree.get_params()), *fields, state["values"].tobytes()))
    return trees


def assert_same_forest(mine, theirs, X):
    assert list(vars(mine)) == list(vars(theirs))
    for name, expected in vars(theirs).items():
        if name not in ("estimators_", "estimator", "estimator_"):
            assert type(getattr(mine, name)) is type(expected), name
            np.testing.assert_array_equal(getattr(mine, name), expected, err_msg=name)
    assert model_trees(mine) == model_trees(theirs)
    for one, other in zip(mine.estimators_, theirs.estimators_, strict=True):
        assert vars(one).keys() == vars(other).keys()
        for name in vars(other).keys() - {"tree_"}:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    again = pickle.loads(pickle.dumps(mine))
    for forest in (mine, again):
        check_is_fitted(forest)
        np.testing.assert_array_equal(forest.predict(X), theirs.predict(X))
        np.testing.assert_array_equal(forest.feature_importances_, theirs.feature_importances_)
        np.testing.assert_array_equal(forest.apply(X), theirs.apply(X))
        if hasattr(theirs, "predict_proba"):
            np.testing.assert_array_equal(forest.predict_proba(X), theirs.predict_proba(X))


ENGINES = [None, LocalEngine(1), LocalEngine(2), ShuffledThreads(), Processes()]
NAMES = ["default", "one thread", "two threads", "shuffled", "processes"]


@pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
@pytest.mark.parametrize(
    "forest",
    [
        RandomForestRegressor(70, random_state=3),
        RandomForestRegressor(33, random_state=3, max_depth=3, max_samples=0.5, monotonic_cst=[1, 0, 0, 0]),
        RandomForestRegressor(np.int64(5), random_state=3, oob_score=True, bootstrap=True),
        RandomForestRegressor(1, random_state=3),
        ExtraTreesRegressor(40, random_state=3, ccp_alpha=0.01, max_leaf_nodes=9, n_jobs=2),
    ],
    ids=lambda forest: str(forest)[:30],
)
@pytest.mark.filterwarnings("ignore:Some inputs do not have OOB")
def test_a_forest_grown_from_blocks(rows, forest, engine):
    theirs, mine = clone(forest).fit(*rows), clone(forest)
    assert grow_forest(mine, *rows, engine=engine) is mine
    mine.n_jobs = theirs.n_jobs = 1  # more threads add up in any order
    assert_same_forest(mine, theirs, rows[0])


@pytest.mark.parametrize("forest", [RandomForestClassifier, ExtraTreesClassifier])
@pytest.mark.parametrize("weight", ["balanced", "balanced_subsample", {"low": 2, "middle": 1, "high": 1}, None])
def test_a_classifier_grown_from_blocks(classes, forest, weight):
    X, y = classes
    weights = np.random.RandomState(0).rand(len(y))
    arguments = {"n_estimators": 40, "random_state": 1, "class_weight": weight, "bootstrap": True}
    theirs = forest(**arguments).fit(X, y, sample_weight=weights)
    mine = grow_forest(forest(**arguments), X, y, weights, engine=ShuffledThreads())
    assert_same_forest(mine, theirs, X)


def test_several_outputs(classes, rows):
    X, y = rows
    both = np.column_stack([y, -y])
    theirs = RandomForestRegressor(40, random_state=1).fit(X, both)
    assert_same_forest(grow_forest(clone(theirs), X, both, engine=ShuffledThreads()), theirs, X)
    both = np.column_stack([classes[1], classes[1][::-1]])
    theirs = RandomForestClassifier(40, random_state=1).fit(X, both)
    mine = grow_forest(clone(theirs), X, both, engine=ShuffledThreads())
    assert model_trees(mine) == model_trees(theirs)
    assert [classes.tolist() for classes in mine.classes_] == [classes.tolist() for classes in theirs.classes_]
    np.testing.assert_array_equal(mine.predict(X), theirs.predict(X))


def test_names_of_features_and_the_digest(rows):
    X, y = rows
    frame, series = pd.DataFrame(X, columns=list("abcd")), pd.Series(y)
    theirs = RandomForestRegressor(40, random_state=1).fit(frame, series)
    mine = grow_forest(clone(theirs), frame, series, engine=Processes())
    assert mine.feature_names_in_.tolist() == list("abcd")
    assert model_digest(mine) == model_digest(theirs) == model_digest(pickle.loads(pickle.dumps(mine)))


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, np.asfortranarray, np.ndarray.tolist, "missing"])
def test_kinds_of_rows(rows, kind, tmp_path):
    X, y = rows
    X = np.where(np.random.RandomState(0).rand(*X.shape) < 0.1, np.nan, X) if kind == "missing" else kind(X)
    theirs = RandomForestRegressor(40, random_state=1).fit(X, y)
    for _ in range(2):  # grown, then read
        assert_same_forest(grow_forest(clone(theirs), X, y, cache=tmp_path, engine=LocalEngine(2)), theirs, X)


def test_a_forest_that_cannot_be_fitted(rows):
    X, y = rows
    with pytest.raises(ValueError, match="max_features"):
        grow_forest(RandomForestRegressor(40, random_state=0, max_features=0), X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        grow_forest(RandomForestRegressor(40, random_state=0), X, y[:-1])
    with pytest.raises(ValueError, match="NaN"):
        grow_forest(RandomForestRegressor(40, random_state=0), X, np.full(len(y), np.nan))
    forest = RandomForestRegressor(40, random_state=0, max_features=0)
    with pytest.raises(ValueError, match="max_features"):
        grow_forest(forest, X, y)
    assert forest.n_estimators == 40  # as it was


def test_no_integer_seed_means_its_own_fit(rows, grown):
    forest = grow_forest(RandomForestRegressor(40), *rows)
    assert len(forest.estimators_) == grown.take() == 40
    assert grow_forest(Ridge(), *rows).coef_.shape == (4,)


# ---------------------------------------------------------------------------------------------- progress and times


@pytest.mark.parametrize("engine", [None, LocalEngine(2), ShuffledThreads()])
def test_progress(rows, engine):
    told = queue.SimpleQueue()
    work = search(
        rows, engine, {"n_estimators": [10, 100], "max_features": [1, 2]}, refit=False, progress=told.put
    ).work_
    steps = []
    while not told.empty():
        steps.append(told.get())
    assert len(steps) >= 4
    for before, after in itertools.pairwise(steps):
        assert after.trees_done >= before.trees_done
        assert after.units_done >= before.units_done
        assert after.seconds >= before.seconds
    last = steps[-1]
    assert last.trees_done == last.trees_needed == work["trees_grown"] == 2 * 2 * 100
    assert last.units_done == last.units == work["units"]


def test_progress_counts_plain_fits_too(rows):
    told = []
    search(
        rows,
        None,
        [{"n_estimators": [4]}, {"warm_start": [True], "n_estimators": [6]}],
        refit=False,
        progress=told.append,
    )
    assert told[-1].units_done == told[-1].units == 4
    assert told[-1].trees_done == told[-1].trees_needed == 2 * 4 + 2 * 6


@pytest.mark.parametrize("engine", [None, LocalEngine(2), ShuffledThreads()])
@pytest.mark.parametrize("grid", [GRID, [GRID, {"warm_start": [True], "n_estimators": [5]}]])
def test_times_add_up(rows, engine, grid):
    found = search(rows, engine, grid, scoring=["r2", "neg_mean_absolute_error"], refit=False, return_train_score=True)
    its = found.cv_results_
    attributed = found.n_splits_ * sum(its["mean_fit_time"] + its["mean_score_time"])
    assert attributed == pytest.approx(found.work_["seconds"], rel=1e-9)
    assert (its["mean_fit_time"] > 0).all()
    # More trees never cost less than the fewer that are part of them.
    for depth in (2, 6, None):
        few, many = (
            its["mean_fit_time"][its["params"].index({"max_depth": depth, "n_estimators": n})] for n in (3, 140)
        )
        assert few < many


def test_settings_that_a_long_forest_needs():
    # The sum over batches is the sum over trees: more trees than a batch, rows enough for every digit to matter.
    X, y = make_regression(200, 6, noise=10, random_state=0)
    grid = {"n_estimators": [1, 31, 32, 33, 64, 65, 100], "max_depth": [4, 5, None]}
    theirs = GridSearchCV(FOREST, grid, cv=2, scoring="neg_mean_squared_error", return_train_score=True).fit(X, y)
    mine = search((X, y), grid=grid, scoring="neg_mean_squared_error", return_train_score=True, n_jobs=2)
    assert_equal_results(mine.cv_results_, theirs.cv_results_)


def test_other_estimators_are_fitted_by_joblib_with_the_same_answer_progress_and_work(rows, capsys, tmp_path):
    grid, told = {"alpha": [0.1, 1.0, 10.0]}, []
    theirs = GridSearchCV(Ridge(), grid, cv=2).fit(*rows)
    for n_jobs in (None, 2):
        ours = SharedGridSearchCV(Ridge(), grid, cv=2, n_jobs=n_jobs, progress=told.append, verbose=1).fit(*rows)
        assert_equal_results(ours.cv_results_, theirs.cv_results_)
        assert (told[-1].done, told[-1].all, told[-1].unit) == (6, 6, "fits")
        assert "6 of 6 fits" in capsys.readouterr().out
    with joblib.parallel_config("threading"):
        assert_equal_results(ours.fit(*rows).cv_results_, theirs.cv_results_)
    # As of a forest: every number is there.
    forest = SharedGridSearchCV(FOREST, {"n_estimators": [2]}, cv=2).fit(*rows)
    assert ours.work_.keys() == forest.work_.keys()
    with pytest.warns(UserWarning, match="the cache keeps trees .* here are none: fits of Ridge share nothing"):
        SharedGridSearchCV(Ridge(), grid, cv=2, cache=tmp_path).fit(*rows)


def test_a_run_search_of_ones_own_decides(rows):
    class FirstOnly(SharedGridSearchCV):
        def _run_search(self, evaluate_candidates):
            evaluate_candidates([next(iter(ParameterGrid(self.param_grid)))])

    search = FirstOnly(FOREST, {"n_estimators": [2, 3]}, cv=2).fit(*rows)
    assert search.cv_results_["params"] == [{"n_estimators": 2}]
    assert (search.work_["not_shared"], search.work_["trees_grown"]) == ({}, 4)
    assert search.work_.keys() == SharedGridSearchCV(FOREST, {"n_estimators": [2]}, cv=2).fit(*rows).work_.keys()


def test_what_is_said_of_trees_that_depth_limits_add(rows, capsys):
    grid = {"max_depth": [1, 2, None], "n_estimators": [20]}
    SharedGridSearchCV(FOREST, grid, cv=2, verbose=1).fit(*rows)
    said = re.findall(r"(\d+) of (\d+) trees", capsys.readouterr().out)
    assert said[-1] == ("120", "120")
    assert all(int(done) <= int(all_of_them) for done, all_of_them in said)
