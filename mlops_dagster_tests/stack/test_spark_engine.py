"""The Spark engine on a local Spark, on a standalone cluster of two workers, and through Connect."""

from __future__ import annotations

import contextlib
import signal
import threading

import psutil
import pytest

from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster.stack.spark import SparkEngine, SparkSettings, spark_engine
from mlops_dagster.stack.spark_engine import _Jobs
from mlops_dagster_tests.contracts.cluster_engine import GRID, X, Y, assert_same_results, forest, run, unit
from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.spark_engine import SparkClusterContract, SparkEngineContract
from mlops_dagster_tests.contracts.spark_servers import (
    PATIENT,
    kill_with_children,
    spark_connect_server,
    spark_master,
    spark_worker,
)

# One process runs them all: a process has one Spark, and two clusters at a time would only wait for each other.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]


class TestOnLocalSpark(SparkEngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        before = signal.getsignal(signal.SIGINT)
        with spark_engine(SparkSettings(master="local[2]", **PATIENT)) as engine:
            assert signal.getsignal(signal.SIGINT) is before  # pyspark would put its own there
            assert engine.ui_url is not None
            yield engine

    def test_a_session_that_is_there_is_used_and_left_alone(self, engine):
        for master in ("active", "local[2]"):
            with spark_engine(SparkSettings(master=master, **PATIENT)) as other:
                assert other.session.sparkContext is engine.session.sparkContext
            assert engine.session.range(3).count() == 3

    def test_everything_is_on_this_machine(self, engine):
        java = [process for process in psutil.Process().children() if "java" in process.name()]
        listening = [
            connection.laddr.ip.removeprefix("::ffff:")
            for process in java
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert set(listening) <= {"127.0.0.1", "::1"}

    def test_jobs_have_readable_names(self, engine):
        SharedGridSearchCV(forest(), {"n_estimators": [2]}, cv=2, refit=False, engine=engine).fit(X, Y)
        assert [name for name in job_names(engine) if name.startswith("grid search, fold 0")]

    @pytest.mark.parametrize("slots", [2, 16])  # in one task, and in several
    def test_short_units_share_jobs(self, engine, slots):
        def short(data, number):
            yield number
            yield -number

        units = [unit(short, number, name=f"{slots} slots, unit {number}") for number in range(400)]
        found = run(SparkEngine(engine.session, slots=slots), units)
        assert found == {number: [number, -number] for number in range(400)}
        jobs = [name for name in job_names(engine) if name.startswith(f"grid search, {slots} slots")]
        # Two for each slot are under way before anything is known; then a handful, where each was a job.
        assert len(jobs) <= 2 * slots + 40
        assert any(name.endswith(" more") for name in jobs)


def job_names(engine):
    """Return the descriptions of the jobs that Spark remembers; some have none."""
    jobs = engine.session.sparkContext._jsc.sc().statusStore().jobsList(None)
    described = [jobs.apply(number).description() for number in range(jobs.size())]
    return [description.get() for description in described if description.isDefined()]


class TestOnAStandaloneCluster(SparkClusterContract):
    executors = 2

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("standalone")
        with contextlib.ExitStack() as servers:
            master = servers.enter_context(spark_master(folder))
            workers = [servers.enter_context(spark_worker(folder, master, f"worker{n}")) for n in range(2)]
            eventually(lambda: master.state()["aliveworkers"] == 2)
            yield master, workers

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, cluster):
        master, _ = cluster
        conf = {"spark.executor.memory": "512m"}
        with spark_engine(SparkSettings(master=master.url, conf=conf, **PATIENT)) as engine:
            yield engine

    # These two come last, since they leave the cluster with one worker.
    def test_yy_units_of_a_killed_executor_run_again(self, cluster, engine, tmp_path):
        _, (worker, _) = cluster

        def wait_at_the_gate(data, folder, number):
            import os
            import pathlib
            import time

            folder = pathlib.Path(folder)
            (folder / f"{number}-{os.getpid()}").touch()
            while not (folder / "gate").exists():
                time.sleep(0.05)
            yield number

        results = {}
        units = [unit(wait_at_the_gate, str(tmp_path), number) for number in range(4)]
        running = threading.Thread(target=lambda: results.update(run(engine, units)))
        running.start()
        eventually(lambda: len(list(tmp_path.iterdir())) == 2)  # one on each executor
        assert not _Jobs(engine.session).without_executors()
        for executor in worker.children():
            executor.kill()
        (tmp_path / "gate").touch()
        running.join()
        assert results == {number: [number] for number in range(4)}
        begun = [file.name for file in tmp_path.iterdir() if file.name != "gate"]
        assert len(begun) == 4 + 1  # the killed executor's unit was begun again, and no other

    def test_zz_a_worker_killed_in_the_middle_of_a_search_changes_nothing(self, cluster, engine):
        _, (worker, _) = cluster
        grid = {**GRID, "n_estimators": [10, 60]}
        local = SharedGridSearchCV(forest(), grid, cv=4).fit(X, Y)
        killed = []

        def kill(progress):
            if progress.units_done and not killed:
                killed.extend(kill_with_children(worker))

        spark = SharedGridSearchCV(forest(), grid, cv=4, engine=engine, progress=kill).fit(X, Y)
        assert len(killed) >= 2  # the worker and its executor
        assert_same_results(spark, local)
        assert spark.best_params_ == local.best_params_


class TestThroughConnect(SparkClusterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tmp_path_factory):
        with (
            spark_connect_server(tmp_path_factory.mktemp("connect")) as url,
            spark_engine(SparkSettings(master=url, **PATIENT)) as engine,
        ):
            assert engine.ui_url is None
            yield engine
