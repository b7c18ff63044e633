"""What was grown is kept: nothing is grown twice, nothing broken is trusted, and nobody harms anybody else."""

import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mlops_dagster.search import SearchCache, SharedGridSearchCV, grow_forest
from mlops_dagster_tests.search.comparing import assert_equal_results

FOREST = RandomForestRegressor(random_state=0)
GRID = {"n_estimators": [5, 10, 40], "max_depth": [2, None], "max_features": [1, 3]}


def search(rows, cache, grid=GRID, forest=FOREST, *, weights=None, **arguments):
    arguments = {"cv": 2, "refit": False, "cache": cache, **arguments}
    return SharedGridSearchCV(clone(forest), grid, **arguments).fit(*rows, sample_weight=weights)


def expected(rows, grid=GRID, forest=FOREST, **arguments):
    return GridSearchCV(clone(forest), grid, **{"cv": 2, "refit": False, **arguments}).fit(*rows).cv_results_


def entries(folder):
    return sorted(Path(folder).rglob("*.unit"))


def contents(folder):
    return {path: path.read_bytes() for path in entries(folder)}


# ------------------------------------------------------------------------------------------------------ what is saved


def test_an_unchanged_search_grows_nothing(rows, tmp_path, grown):
    first = search(rows, tmp_path)
    # 40 trees under each of two depth limits (2 binds), for each max_features, on two folds.
    assert first.work_["trees_grown"] == grown.take() == 40 * 2 * 2 * 2
    again = search(rows, tmp_path)
    assert again.work_["trees_grown"] == grown.take() == 0
    assert again.work_["units"] == 0
    assert again.work_["trees_reused"] == again.work_["trees_needed"]
    for found in (first, again):
        assert_equal_results(found.cv_results_, expected(rows))
    assert sum(again.cv_results_["mean_fit_time"]) == 0


def test_one_more_value_grows_only_what_is_new(rows, tmp_path, grown):
    search(rows, tmp_path, {"n_estimators": [10, 50]})
    assert grown.take() == 100
    # At the end: from 50 to 70, on two folds.
    assert search(rows, tmp_path, {"n_estimators": [10, 50, 70]}).work_["trees_grown"] == grown.take() == 2 * 20
    # In the middle: from the mark below, 10 to 30.
    found = search(rows, tmp_path, {"n_estimators": [10, 30, 50, 70]})
    assert found.work_["trees_grown"] == grown.take() == 2 * 20
    # In front: 0 to 4.
    assert search(rows, tmp_path, {"n_estimators": [4, 70]}).work_["trees_grown"] == grown.take() == 2 * 4
    assert grown.take() == 0
    assert_equal_results(found.cv_results_, expected(rows, {"n_estimators": [10, 30, 50, 70]}))


def test_more_depths(rows, tmp_path, grown):
    search(rows, tmp_path, {"n_estimators": [6], "max_depth": [None]})
    assert grown.take() == 12
    # No tree is as deep as 60 rows: larger limits hold for what is there.
    assert search(rows, tmp_path, {"n_estimators": [6], "max_depth": [60, 99, None]}).work_["trees_grown"] == 0
    # Every tree meets 1.
    found = search(rows, tmp_path, {"n_estimators": [6], "max_depth": [1, 60]})
    assert found.work_["trees_grown"] == grown.take() == 12
    assert_equal_results(found.cv_results_, expected(rows, {"n_estimators": [6], "max_depth": [1, 60]}))


def test_limits_that_bind_for_some_trees_only(tmp_path):
    # Few different rows, so that trees are as deep as a limit without having met it, and the other way round.
    draws = np.random.RandomState(0)
    rows = draws.randint(0, 3, (60, 3)).astype(float), draws.rand(60)
    forest = RandomForestRegressor(random_state=0, max_features=1)
    for order in ([3, 5, 6, 7, 9], [9, 7, 6, 5, 3], [6, 9, 3, 5, 7]):
        shutil.rmtree(tmp_path)
        for n, depth in enumerate(order):
            grid = {"max_depth": [depth, *order[:n]], "n_estimators": [2, 5 + n]}
            assert_equal_results(search(rows, tmp_path, grid, forest).cv_results_, expected(rows, grid, forest))


def test_another_scoring_costs_nothing(rows, tmp_path, grown):
    search(rows, tmp_path)
    grown.take()
    found = search(rows, tmp_path, scoring=["neg_max_error", "r2"])
    assert found.work_["trees_grown"] == grown.take() == 0
    assert_equal_results(found.cv_results_, expected(rows, scoring=["neg_max_error", "r2"]))


def test_a_refit_comes_from_the_cache_too(rows, tmp_path, grown):
    first = search(rows, tmp_path, refit=True)
    assert first.work_["refit_trees_grown"] > 0
    grown.take()
    again = search(rows, tmp_path, refit=True)
    # Its first tree is grown by scikit-learn's own fit, which sets everything that isn't a tree.
    assert again.work_["refit_trees_grown"] == grown.take() == 1
    plain = clone(FOREST).set_params(**first.best_params_).fit(*rows)
    for found in (first, again):
        best = pickle.loads(pickle.dumps(found.best_estimator_))
        for forest in (best, found.best_estimator_):
            assert_equal_forests(forest, plain, rows[0])


def test_a_forest_from_the_cache_is_the_same_to_the_bit(classes, tmp_path, grown):
    plain = RandomForestClassifier(40, random_state=3, max_depth=4).fit(*classes)
    grown.take()
    for trees in (40, 1):
        forest = grow_forest(RandomForestClassifier(40, random_state=3, max_depth=4), *classes, cache=tmp_path)
        assert grown.take() == trees
        assert_equal_forests(forest, plain, classes[0])


def assert_equal_forests(one, other, X):
    assert one.get_params() == other.get_params()
    for mine, theirs in zip(one.estimators_, other.estimators_, strict=True):
        assert mine.get_params() == theirs.get_params()
        mine_state, their_state = mine.tree_.__getstate__(), theirs.tree_.__getstate__()
        for field in mine_state["nodes"].dtype.names:  # between the fields there are bytes that mean nothing
            assert mine_state["nodes"][field].tobytes() == their_state["nodes"][field].tobytes(), field
        assert mine_state["values"].tobytes() == their_state["values"].tobytes()
        assert (mine_state["max_depth"], mine_state["node_count"]) == (
            their_state["max_depth"],
            their_state["node_count"],
        )
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    np.testing.assert_array_equal(one.feature_importances_, other.feature_importances_)
    np.testing.assert_array_equal(one.apply(X), other.apply(X))


# ------------------------------------------------------------------------------------------- what isn't what was kept


def moved_feature(X, y):
    X = X.copy()
    X[-1, 0] += 1e-3
    return {"rows": (X, y)}


def moved_target(X, y):
    y = y.copy()
    y[-1] += 1e-9
    return {"rows": (X, y)}


def weighted(X, y):
    weights = np.ones(len(y))
    weights[0] = 1.5
    return {"weights": weights}


@pytest.mark.parametrize(
    "change",
    [
        moved_feature,
        moved_target,
        weighted,
        lambda X, y: {"weights": np.ones(len(y))},
        lambda X, y: {"forest": RandomForestRegressor(random_state=1)},
        lambda X, y: {"forest": ExtraTreesRegressor(random_state=0, bootstrap=True)},
        lambda X, y: {"forest": RandomForestRegressor(random_state=0, min_impurity_decrease=1e-9)},
        lambda X, y: {"return_train_score": True},
        lambda X, y: {"cv": [(range(61), range(60, 120)), (range(50, 120), range(50))]},
        lambda X, y: {"rows": (X[::-1], y[::-1])},
    ],
    ids=[
        "feature",
        "target",
        "weights",
        "ones",
        "seed",
        "class",
        "parameter",
        "train scores",
        "folds",
        "order of rows",
    ],
)
def test_what_differs_is_not_reused(rows, tmp_path, grown, change):
    grid = {"n_estimators": [5]}
    search(rows, tmp_path, grid)
    assert grown.take() == 10
    arguments = change(*rows)
    search(arguments.pop("rows", rows), tmp_path, grid, **arguments)
    # A target is part of one fold's training rows only; trees don't see those of the test rows.
    assert grown.take() == (5 if change is moved_target else 10)


def test_another_version_of_scikit_learn_is_not_reused(rows, tmp_path, grown, monkeypatch):
    search(rows, tmp_path, {"n_estimators": [5]})
    monkeypatch.setattr(sklearn, "__version__", "99.0")
    search(rows, tmp_path, {"n_estimators": [5]})
    assert grown.take() == 20


# -------------------------------------------------------------------------------------------------------- what breaks


def damage(how, paths):
    for number, path in enumerate(paths):
        content = path.read_bytes()
        if how == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif how == "empty":
            path.write_bytes(b"")
        elif how == "one bit":
            path.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
        elif how == "foreign":
            path.write_bytes(b"PK\x03\x04 not ours")
        elif how == "a pickle":
            path.write_bytes(pickle.dumps(Bomb()))
        elif how == "swapped":
            shutil.copy(paths[number - 1], path.with_suffix(".moved"))
        elif how == "a folder":
            path.unlink()
            path.mkdir()
        elif how == "longer":
            path.write_bytes(content + b"\0")
    for path in paths if how == "swapped" else ():
        path.with_suffix(".moved").replace(path)


class Bomb:
    """Would be noticed if anything unpickled it."""

    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


@pytest.mark.parametrize(
    "how", ["truncated", "empty", "one bit", "foreign", "a pickle", "swapped", "a folder", "longer"]
)
def test_what_is_broken_is_grown_again(rows, tmp_path, grown, how, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    first = search(rows, cache, refit=True)
    trees = grown.take()
    damage(how, entries(cache))
    with warnings.catch_warnings():
        # A folder in an entry's place can't be overwritten, which is said once.
        warnings.simplefilter("ignore" if how == "a folder" else "error")
        again = search(rows, cache, refit=True)
    assert grown.take() == trees
    assert_equal_results(again.cv_results_, expected(rows))
    grown.take()
    assert_equal_forests(again.best_estimator_, first.best_estimator_, rows[0])
    assert not Path("bomb-went-off").exists()
    if how != "a folder":
        search(rows, cache)
        assert grown.take() == 0  # it was put right


def test_files_of_others_are_left_alone(rows, tmp_path):
    (tmp_path / "aa").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "aa" / "0-5.unit").write_text("mine")
    search(rows, tmp_path)
    SearchCache(tmp_path).prune(max_bytes=0)
    assert (tmp_path / "notes.txt").read_text() == (tmp_path / "aa" / "0-5.unit").read_text() == "mine"


def test_a_strange_name_beside_the_entries(rows, tmp_path, grown):
    search(rows, tmp_path)
    folder = entries(tmp_path)[0].parent
    for name in ("what.unit", "1-2-3.unit", "0-7-9-x.unit", ".unit", "0-9-2147483647-3.unit"):
        (folder / name).write_bytes(b"?")
    grown.take()
    search(rows, tmp_path)
    assert grown.take() == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the next test does it otherwise")
def test_a_folder_that_is_read_only(rows, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.warns(RuntimeWarning, match="goes on without keeping"):
        search(rows, tmp_path)


def test_a_folder_that_cannot_be_written(rows, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    with pytest.warns(RuntimeWarning, match="goes on without keeping") as said:
        found = search(rows, in_the_way, refit=True, n_jobs=2)
    assert len([warning for warning in said if issubclass(warning.category, RuntimeWarning)]) == 1
    assert_equal_results(found.cv_results_, expected(rows))


def test_a_disk_that_is_full(rows, tmp_path):
    # /dev/full fails as a full disk does; entries can't be files there, so the folder is a process's small quota.
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.warns(RuntimeWarning, match="goes on without keeping") as said:
            found = search(rows, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(said) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # nothing half-written is left
    assert_equal_results(found.cv_results_, expected(rows))


# ------------------------------------------------------------------------------------------------------------ several


def test_threads_on_one_folder(rows, tmp_path):
    found = [None] * 4

    def one(number):
        found[number] = search(rows, tmp_path, n_jobs=2 if number % 2 else None)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    theirs = expected(rows)
    for its in found:
        assert_equal_results(its.cv_results_, theirs)
    assert search(rows, tmp_path).work_["trees_grown"] == 0


BOOSTING = GradientBoostingRegressor(random_state=0)
SEARCHES = {
    "forest": (FOREST, {"n_estimators": [25, 50, 75, 100], "max_depth": [3, None], "max_features": [1, 2, 3]}),
    "boosting": (BOOSTING, {"n_estimators": [20, 40, 60], "learning_rate": [0.1, 0.2, 0.3, 0.4], "max_depth": [2, 3]}),
    "pipeline": (
        Pipeline([("scale", StandardScaler()), ("boost", BOOSTING)]),
        {
            "scale": [StandardScaler(), MinMaxScaler()],
            "boost__n_estimators": [20, 40, 60],
            "boost__learning_rate": [0.1, 0.2],
            "boost__max_depth": [2, 3],
        },
    ),
}


def search_and_tell(what, folder, out, begun):
    draws = np.random.default_rng(5)
    X = draws.random((300, 4))
    y = 3 * X[:, 0] + X[:, 1]
    estimator, grid = SEARCHES[what]
    begun.send("begun")
    found = SharedGridSearchCV(estimator, grid, cv=3, cache=folder).fit(X, y)
    said = {"scores": found.cv_results_["mean_test_score"].tolist(), "best": str(found.best_params_)}
    out.write_text(json.dumps({**said, "predicted": found.predict(X).tolist(), "work": found.work_}))


def start(folder, out, what="forest"):
    """Start a search in a process that has imported all it needs, and wait until it begins."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    begun, theirs = context.Pipe(duplex=False)
    process = context.Process(target=search_and_tell, args=(what, folder, out, theirs))
    process.start()
    assert begun.recv() == "begun"
    return process


def ended(process):
    process.join()
    return process.exitcode


def answer(out):
    its = json.loads(Path(out).read_text())
    return its.pop("work"), its


def test_processes_on_one_folder(tmp_path):
    processes = [start(tmp_path / "cache", tmp_path / f"{number}.json") for number in range(3)]
    assert [ended(process) for process in processes] == [0, 0, 0]
    answers = [answer(tmp_path / f"{number}.json")[1] for number in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert ended(start(tmp_path / "cache", tmp_path / "last.json")) == 0
    work, its = answer(tmp_path / "last.json")
    assert work["trees_grown"] == 0
    assert its == answers[0]


def killed_at_any_moment(tmp_path, what):
    """Kill a search at ten random moments; return what a whole one did, and the cache that the killed ones left."""
    whole = start(tmp_path / "whole", tmp_path / "whole.json", what)
    began = time.monotonic()
    assert ended(whole) == 0
    takes = time.monotonic() - began

    draws = random.Random(0)
    killed = 0
    cache = tmp_path / "cache"
    for _ in range(10):
        process = start(cache, tmp_path / "killed.json", what)
        time.sleep(draws.uniform(0, takes / 6))
        process.kill()
        killed += ended(process) == -signal.SIGKILL
    assert killed >= 5
    return answer(tmp_path / "whole.json"), cache


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    # 3 max_features x (a limit of 3, which every tree meets, and none) x 100 trees x 3 folds
    all_trees = 3 * 2 * 100 * 3
    (work, expected_answer), cache = killed_at_any_moment(tmp_path, "forest")
    assert work["trees_grown"] == all_trees
    saved = trees_kept(cache)
    assert ended(start(cache, tmp_path / "last.json")) == 0
    work, its = answer(tmp_path / "last.json")
    assert its == expected_answer
    # Nothing that was durable is grown again. A unit of all trees yields its sums at every wanted number of them, so a
    # kill costs what was grown since the last one: less than 25 trees under two limits.
    assert work["trees_grown"] <= all_trees - saved
    assert search_again(tmp_path) == 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["boosting", "pipeline"])
def test_boosting_is_killed_at_any_moment(tmp_path, what):
    # 8 settings x 3 folds, each a unit of 60 stages that leaves the scores of 3 sizes.
    (work, expected_answer), cache = killed_at_any_moment(tmp_path, what)
    assert work["trees_grown"] == 8 * 3 * 60
    left = Counter(path.parent for path in entries(cache))
    done = sum(count == 3 for count in left.values())
    assert ended(start(cache, tmp_path / "last.json", what)) == 0
    work, its = answer(tmp_path / "last.json")
    assert its == expected_answer
    assert work["trees_grown"] <= (8 * 3 - done) * 60
    assert work["units"] == 8 * 3 - done  # of those in flight all is done again


def trees_kept(cache):
    """Return how many trees whole entries stand for: the longest sum for each key and limit."""
    longest = {}
    for path in entries(cache):
        if path.stem.startswith("trees"):
            continue
        start_tree, stop, limit, _ = (int(part) for part in path.stem.split("-"))
        assert start_tree == 0
        key = (path.parent.name, limit)
        longest[key] = max(longest.get(key, 0), stop)
    return sum(longest.values())


def search_again(tmp_path):
    assert ended(start(tmp_path / "cache", tmp_path / "again.json")) == 0
    return answer(tmp_path / "again.json")[0]["trees_grown"]


# -------------------------------------------------------------------------------------------------------- house work


def test_describe(rows, tmp_path):
    assert SearchCache(tmp_path / "none").describe() == []
    search(rows, tmp_path)
    described = SearchCache(tmp_path).describe()
    # A key for each max_features on each fold; each keeps three sums under each of two limits.
    assert [one["entries"] for one in described] == [6] * 4
    assert sum(one["bytes"] for one in described) == sum(path.stat().st_size for path in entries(tmp_path))
    assert all(time.time() - one["used"] < 600 for one in described)


def test_prune(rows, tmp_path, grown):
    cache = SearchCache(tmp_path)
    assert cache.prune(max_bytes=0) == 0
    search(rows, cache)
    paths = entries(tmp_path)
    size = sum(path.stat().st_size for path in paths)
    assert cache.prune() == cache.prune(older_than_days=1) == cache.prune(max_bytes=size) == 0

    for path in paths[:5]:
        os.utime(path, (0, 0))
    old = sum(path.stat().st_size for path in paths[:5])
    assert cache.prune(older_than_days=1) == old
    assert entries(tmp_path) == paths[5:]

    assert cache.prune(max_bytes=1000) == size - old - sum(path.stat().st_size for path in entries(tmp_path))
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 1000

    cache.prune(max_bytes=0)
    assert entries(tmp_path) == []
    assert list(tmp_path.glob("*/*")) == []
    grown.take()
    search(rows, cache)
    assert grown.take() == 320


def test_what_is_used_is_not_pruned_first(rows, tmp_path, grown):
    search(rows, tmp_path, {"n_estimators": [5]})
    used = entries(tmp_path)
    search(rows, tmp_path, {"n_estimators": [5], "max_features": [1]})
    for path in entries(tmp_path):
        os.utime(path, (1000, 1000) if path in used else (2000, 2000))
    search(rows, tmp_path, {"n_estimators": [5]})
    SearchCache(tmp_path).prune(max_bytes=sum(path.stat().st_size for path in used))
    assert entries(tmp_path) == used


def test_pruning_while_searching(rows, tmp_path):
    stop = threading.Event()

    def prune():
        while not stop.is_set():
            SearchCache(tmp_path).prune(max_bytes=0)

    pruning = threading.Thread(target=prune)
    pruning.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = search(rows, tmp_path, n_jobs=2, refit=True)
    finally:
        stop.set()
        pruning.join()
    assert_equal_results(found.cv_results_, expected(rows))


def test_half_written_files_of_the_dead_go_with_a_prune(rows, tmp_path):
    search(rows, tmp_path)
    folder = entries(tmp_path)[0].parent
    dead, alive = folder / "0-1-2-3.dead.partial", folder / "0-1-2-3.alive.partial"
    for path in (dead, alive):
        path.write_bytes(b"half")
    os.utime(dead, (0, 0))
    SearchCache(tmp_path).prune(older_than_days=1)
    assert (dead.exists(), alive.exists()) == (False, True)


def test_no_file_is_ever_seen_half(rows, tmp_path):
    # Whatever bears an entry's name is whole: a reader that looks all the time never finds it otherwise.
    stop, seen = threading.Event(), []

    def look():
        while not stop.is_set():
            for path in entries(tmp_path):
                key, name = path.parent.name, path.name.removesuffix(".unit")
                seen.append(SearchCache(tmp_path).read(key, name) is not None)

    looking = threading.Thread(target=look)
    looking.start()
    search(rows, tmp_path, n_jobs=2)
    stop.set()
    looking.join()
    assert all(seen)
