"""What an engine of a cluster does, whichever cluster: the search's results, whatever travels, dies or is stopped."""

from __future__ import annotations

import _thread
import importlib
import os
import signal
import time
import warnings
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlops_dagster.errors import MlopsError
from mlops_dagster.modeling.digest import model_digest
from mlops_dagster.search import SharedGridSearchCV, grow_forest
from mlops_dagster_tests.contracts.servers import eventually

DRAWS = np.random.default_rng(0)
X = pd.DataFrame(DRAWS.normal(size=(300, 4)), columns=["a", "b", "c", "d"])
Y = X["a"].to_numpy() * 3 + DRAWS.normal(size=300)
GRID = {"max_depth": [2, 4, 30], "min_samples_leaf": [1, 5], "n_estimators": [3, 10]}


def forest() -> RandomForestRegressor:
    return RandomForestRegressor(random_state=3)


def assert_same_results(there: Any, local: Any) -> None:
    assert there.cv_results_.keys() == local.cv_results_.keys()
    for key, values in local.cv_results_.items():
        if key.endswith("_time"):
            continue
        if key == "params" or values.dtype == object or key.startswith("param_"):
            assert list(there.cv_results_[key]) == list(values), key
        else:
            # Blocks of trees are added up in another order (see Engine.cuts_groups).
            np.testing.assert_allclose(there.cv_results_[key], values, rtol=1e-12, atol=1e-12, err_msg=key)


def unit(work: Any, *arguments: Any, name: str = "a unit of the tests") -> Any:
    """Make a unit of a function. Executors can't import the tests, so the class is made here and travels by value."""

    @dataclass(frozen=True)
    class TestUnit:
        name: str
        work: Any
        arguments: tuple[Any, ...]
        fold: int = 0
        trees: int = 1

        def __str__(self) -> str:
            return self.name

        def run(self, data: Any) -> Any:
            yield from self.work(data, *self.arguments)

    return TestUnit(name, work, arguments)


def run(engine: Any, units: list[Any], data: Any = None) -> dict[int, list[Any]]:
    results: dict[int, list[Any]] = {}
    engine.run(units, data, lambda number, result: results.setdefault(number, []).append(result))
    return results


class EngineContract:
    """Inherit, and give a class-scoped fixture `engine` that runs two units at a time.

    Attributes
    ----------
    error
        What it raises if the cluster can't do what is asked.
    """

    error: type[MlopsError]

    def nothing_runs(self, engine):
        """Whether the cluster has nothing to do, as far as it can be asked."""
        return True

    def assert_nothing_runs(self, engine):
        eventually(lambda: self.nothing_runs(engine), seconds=60)

        def ok(data):
            yield 1

        # All cores are free again: as many units as there are cores can meet.
        assert run(engine, [unit(ok), unit(ok)]) == {0: [1], 1: [1]}

    def test_it_knows_the_cores(self, engine):
        assert engine.slots == 2

    def test_a_search_has_the_same_results(self, engine):
        local = SharedGridSearchCV(forest(), GRID, cv=3, return_train_score=True).fit(X, Y)
        spark = SharedGridSearchCV(forest(), GRID, cv=3, return_train_score=True, engine=engine).fit(X, Y)
        assert_same_results(spark, local)
        assert spark.best_params_ == local.best_params_
        assert model_digest(spark.best_estimator_) == model_digest(local.best_estimator_)
        assert spark.work_["trees_grown"] == local.work_["trees_grown"]

    def test_a_process_that_dies_is_tried_again(self, engine, tmp_path):
        def die_once(data, marker):
            import os
            import pathlib
            import signal

            if not pathlib.Path(marker).exists():
                pathlib.Path(marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield "done"

        def quiet(data):
            yield "done"

        units = [unit(die_once, str(tmp_path / "died")), *(unit(quiet) for _ in range(4))]
        assert run(engine, units) == {number: ["done"] for number in range(5)}
        assert (tmp_path / "died").exists()

    def test_an_error_of_a_unit_names_it_and_is_not_tried_again(self, engine, tmp_path):
        def fail(data, file):
            import pathlib

            with pathlib.Path(file).open("a") as tries:
                tries.write("x")
            raise ZeroDivisionError("the unit's own mistake")
            yield

        with pytest.raises(self.error, match=r"(?s)fold 7 failed on a.*ZeroDivisionError: the unit's own"):
            run(engine, [unit(fail, str(tmp_path / "tries"), name="fold 7")])
        assert (tmp_path / "tries").read_text() == "x"

    def test_a_class_of_ones_own_travels_if_told_to_and_is_named_otherwise(self, engine, tmp_path, monkeypatch):
        (tmp_path / "only_here.py").write_text("from sklearn.linear_model import Ridge\nclass Mine(Ridge):\n    pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        module = importlib.import_module("only_here")
        search = SharedGridSearchCV(module.Mine(), {"alpha": [0.1, 1.0]}, cv=2, refit=False, engine=engine)
        with pytest.raises(self.error, match=r"No module named 'only_here'.* Install") as refused:
            search.fit(X, Y)
        assert "Traceback" not in str(refused.value)
        cloudpickle.register_pickle_by_value(module)
        try:
            search.fit(X, Y)
        finally:
            cloudpickle.unregister_pickle_by_value(module)
        own = SharedGridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2, refit=False).fit(X, Y)
        assert list(search.cv_results_["mean_test_score"]) == list(own.cv_results_["mean_test_score"])

    @pytest.mark.parametrize("how", ["receive", "interrupt", "exit"])
    def test_stopping_stops_what_runs_there(self, engine, tmp_path, how):
        def burn_once(data, folder):
            import os
            import pathlib

            folder = pathlib.Path(folder)
            try:
                (folder / "taken").mkdir()
            except FileExistsError:  # somebody burns already
                while not list(folder.glob("*.pid")):
                    time.sleep(0.05)
                yield 1
                return
            (folder / f"{os.getpid()}.pid").touch()
            while True:
                pass

        def receive(number, result):
            if how == "receive":
                raise LookupError("the receiver has had enough")
            if how == "interrupt":
                _thread.interrupt_main()
            else:
                os.kill(os.getpid(), signal.SIGTERM)

        def leave(*_):
            raise SystemExit(143)

        before = signal.signal(signal.SIGTERM, leave)
        units = [unit(burn_once, str(tmp_path)) for _ in range(50)]
        expected = {"receive": LookupError, "interrupt": KeyboardInterrupt, "exit": SystemExit}[how]
        try:
            with pytest.raises(expected):
                engine.run(units, None, receive)
        finally:
            signal.signal(signal.SIGTERM, before)
        (burning,) = [int(file.stem) for file in tmp_path.glob("*.pid")]
        eventually(lambda: not psutil.pid_exists(burning), seconds=60)
        self.assert_nothing_runs(engine)


class ClusterContract(EngineContract):
    """What one kind of cluster shows for the others of its engine, too."""

    def test_so_has_one_with_a_pipeline_and_a_candidate_that_fails(self, engine):
        labels = np.where(Y > 0, "up", "down")
        given = {
            "estimator": make_pipeline(StandardScaler(), ExtraTreesClassifier(random_state=0)),
            "param_grid": {
                "extratreesclassifier__n_estimators": [3, 6],
                "extratreesclassifier__max_features": [2, -1.0],
            },
            "scoring": ["accuracy", "neg_log_loss"],
            "refit": "accuracy",
            "cv": 2,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            local = SharedGridSearchCV(**given).fit(X, labels)
            spark = SharedGridSearchCV(**given, engine=engine).fit(X, labels)
        assert_same_results(spark, local)
        assert np.isnan(spark.cv_results_["mean_test_accuracy"]).sum() == 2

    def test_a_forest_is_the_same_forest(self, engine):
        there = grow_forest(RandomForestRegressor(n_estimators=40, random_state=1), X, Y, engine=engine)
        here = RandomForestRegressor(n_estimators=40, random_state=1).fit(X, Y)
        assert model_digest(there) == model_digest(here)
        assert np.array_equal(there.predict(X), here.predict(X))

    def test_results_come_as_they_are_made(self, engine, tmp_path):
        (gate := tmp_path / "gate").write_text("shut")

        def wait(data, gate):
            import pathlib

            while pathlib.Path(gate).exists():
                time.sleep(0.05)
            yield "last"

        def at_once(data):
            yield "first"

        order = []

        def receive(number, result):
            order.append(result)
            gate.unlink(missing_ok=True)  # the other unit ends only because this result is here already

        engine.run([unit(wait, str(gate)), unit(at_once)], None, receive)
        assert order == ["first", "last"]

    def test_a_result_may_be_large(self, engine):
        def large(data):
            import numpy as np

            yield np.arange(5_000_000, dtype=float)  # 40 MB
            yield "and another"

        ((array, text),) = run(engine, [unit(large)]).values()
        assert array.sum() == 4_999_999 * 2_500_000
        assert text == "and another"

    def test_warnings_come_home(self, engine):
        def warn(data):
            import warnings

            warnings.warn("from far away", stacklevel=1)
            yield 1

        with pytest.warns(UserWarning, match="from far away"):
            assert run(engine, [unit(warn)]) == {0: [1]}

    def test_scikit_learns_settings_travel(self, engine):
        from sklearn import config_context

        def settings(data):
            from sklearn import get_config

            yield get_config()["assume_finite"]

        with config_context(assume_finite=True):
            assert run(engine, [unit(settings)]) == {0: [True]}

    def test_a_bad_candidate_ends_the_search_at_once(self, engine):
        grid = {"n_estimators": [3, 2000], "max_features": [-1.0, 2]}
        search = SharedGridSearchCV(forest(), grid, cv=2, error_score="raise", engine=engine)
        with pytest.raises(ValueError, match="max_features"):
            search.fit(X, Y)
        self.assert_nothing_runs(engine)

    def test_plain_fits_run_there_too(self, engine):
        grid = {"strategy": ["mean", "median"]}
        local = SharedGridSearchCV(DummyRegressor(), grid, cv=3).fit(X, Y)
        assert_same_results(SharedGridSearchCV(DummyRegressor(), grid, cv=3, engine=engine).fit(X, Y), local)

    def test_so_do_fits_that_serve_many_candidates(self, engine):
        boosting, grid = GradientBoostingRegressor(random_state=0), {"n_estimators": [2, 5], "max_depth": [1, 2]}
        local = SharedGridSearchCV(boosting, grid, cv=2).fit(X, Y)
        spark = SharedGridSearchCV(boosting, grid, cv=2, engine=engine).fit(X, Y)
        assert_same_results(spark, local)
        assert spark.work_["trees_grown"] == local.work_["trees_grown"] == 2 * 2 * 5
