"""Processes for small trees: the same answer to the last bit, and threads where there can't be processes."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time

import joblib
import numpy as np
import psutil
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster.search.choosing import ThreadsOrProcesses
from mlops_dagster_tests.search.comparing import assert_equal_results

FOREST = RandomForestRegressor(random_state=0)
GRID = {"n_estimators": [3, 100], "max_depth": [2, None], "max_features": [1, 2]}
SAMPLES = 2 * (1 + 4)  # trees that are grown to choose: of the search, and once per process of two rows


def processes():
    """Return what chooses processes for any number of small trees."""
    return ThreadsOrProcesses(2, start_seconds=0)


def search(rows, engine, grid=GRID, forest=FOREST, **arguments):
    return SharedGridSearchCV(clone(forest), grid, **{"cv": 2, "engine": engine, **arguments}).fit(*rows)


def workers(parent=None):
    return [process for process in psutil.Process(parent).children(recursive=True) if "LokyProcess" in cmdline(process)]


def cmdline(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_small_trees_grow_in_processes_and_the_answer_is_the_same_to_the_last_bit(rows, grown, tmp_path):
    arguments = {"refit": False, "return_train_score": True}
    mine = search(rows, processes(), cache=tmp_path, **arguments)
    assert grown.take() <= SAMPLES
    assert_equal_results(mine.cv_results_, GridSearchCV(FOREST, GRID, cv=2, **arguments).fit(*rows).cv_results_)
    assert mine.work_["fell_back"] == {}
    assert mine.work_["trees_grown"] >= 2 * 2 * 100
    again = search(rows, processes(), cache=tmp_path, **arguments)
    assert again.work_["trees_grown"] == 0
    assert_equal_results(again.cv_results_, mine.cv_results_)


def test_steps_in_front_and_the_best_forest(rows):
    pipeline = make_pipeline(StandardScaler(), FOREST)
    grid = {"standardscaler": [StandardScaler(), MinMaxScaler()], "randomforestregressor__n_estimators": [10, 70]}
    mine, theirs = search(rows, processes(), grid, pipeline), GridSearchCV(pipeline, grid, cv=2).fit(*rows)
    assert_equal_results(mine.cv_results_, theirs.cv_results_)
    np.testing.assert_array_equal(mine.predict(rows[0]), theirs.predict(rows[0]))


def test_few_trees_and_other_backends_stay_here(rows, grown):
    few = search(rows, ThreadsOrProcesses(2), refit=False)
    assert grown.take() == few.work_["trees_grown"]  # not even a sample
    with joblib.parallel_config("threading"):
        search(rows, processes(), refit=False)
    assert grown.take() == few.work_["trees_grown"]


def search_elsewhere(rows, told=None):
    found = search(rows, processes(), refit=False)
    seen = len(workers()), found.work_["trees_grown"]
    if told is not None:
        told.put(seen)
    return seen


def test_within_other_processes_it_is_threads(rows):
    expected = search(rows, None, refit=False).work_["trees_grown"]
    assert joblib.Parallel(2)(joblib.delayed(search_elsewhere)(rows) for _ in range(2)) == [(0, expected)] * 2
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    daemon = context.Process(target=search_elsewhere, args=(rows, told), daemon=True)
    daemon.start()
    daemon.join(60)
    assert told.get() == (0, expected)


class Locked:
    """A scorer that can't travel."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, estimator, X, y):
        with self.lock:
            return estimator.score(X, y)


def test_what_cannot_be_sent_runs_on_threads(rows):
    with pytest.warns(RuntimeWarning, match=r"4 of 4 units are left, which now run on threads\. PicklingError"):
        mine = search(rows, processes(), scoring=Locked())
    assert_equal_results(mine.cv_results_, GridSearchCV(FOREST, GRID, cv=2).fit(*rows).cv_results_)


def test_a_killed_worker_is_said_and_nothing_is_lost(rows):
    killed, told = [], []

    def kill(progress):
        told.append(progress)
        if not killed:
            killed.extend(workers())
            for worker in killed:
                worker.kill()

    grid = {**GRID, "max_features": [1, 2, 3, 4], "max_depth": [None]}
    with pytest.warns(RuntimeWarning, match=r"of 8 units are left, which now run on threads\. TerminatedWorkerError"):
        mine = search(rows, processes(), grid, progress=kill)
    assert killed
    assert_equal_results(mine.cv_results_, GridSearchCV(FOREST, grid, cv=2).fit(*rows).cv_results_)
    assert (told[-1].units_done, told[-1].units, told[-1].trees_done) == (8, 8, mine.work_["trees_grown"])


def test_an_error_of_the_receiver_stops_the_workers(rows):
    def enough(progress):
        raise LookupError("enough")

    with (
        pytest.warns(UserWarning, match="tasks .* by the workers"),  # joblib's, of what it stops
        pytest.raises(LookupError, match="enough"),
    ):
        search(rows, processes(), {"n_estimators": [200], "max_features": [1, 2, 3, 4]}, progress=enough)
    assert psutil.wait_procs(workers(), timeout=30)[1] == []  # those that are done stay for minutes


def test_a_real_interrupt():
    script = """
import numpy as np
from sklearn.ensemble import RandomForestRegressor
from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster.search.choosing import ThreadsOrProcesses
X = np.random.RandomState(0).rand(200, 5)
grid = {"n_estimators": [100, 20000], "max_features": [1, 2, 3]}
engine = ThreadsOrProcesses(2, start_seconds=0)
search = SharedGridSearchCV(RandomForestRegressor(random_state=0), grid, engine=engine)
print("going", flush=True)
search.fit(X, X[:, 0])
"""
    program = [sys.executable, "-c", script]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "going\n"
    while len(begun := workers(process.pid)) < 2:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)  # the search takes many minutes
    assert process.returncode != 0
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert psutil.wait_procs(begun, timeout=30)[1] == []
