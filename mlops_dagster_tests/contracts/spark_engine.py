"""What the Spark engine does on every Spark (local, standalone, Connect), and what is seen on a cluster alone."""

from __future__ import annotations

import copy
import pickle
import time

import numpy as np
import pytest

from mlops_dagster.stack.spark import SparkEngine, SparkError
from mlops_dagster_tests.contracts.cluster_engine import ClusterContract, EngineContract, run, unit


class SparkEngineContract(EngineContract):
    """Inherit, and give a class-scoped fixture `engine` that runs two units at a time."""

    error = SparkError
    executors = 1

    def nothing_runs(self, engine):
        if "connect" in type(engine.session).__module__:
            return True  # it can't be asked
        return not engine.session.sparkContext.statusTracker().getActiveJobsIds()

    def test_data_travels_once_per_executor_and_is_loaded_once_per_process(self, engine):
        def look(data):
            import os
            import pathlib
            import time

            from pyspark import SparkFiles

            from mlops_dagster.stack import spark_executor

            time.sleep(0.2)  # so that no process is done with all of them before the other has begun
            (name,) = spark_executor.loaded
            file = SparkFiles.get(name)
            yield file, pathlib.Path(file).stat().st_ino, os.getpid(), spark_executor.loads, float(data["x"].sum())

        data = {"x": np.full(100_000, 0.5), "run": time.time_ns()}
        seen = [result for (result,) in run(engine, [unit(look) for _ in range(16)], data).values()]
        assert len(seen) == 16
        assert {total for *_, total in seen} == {50_000.0}
        files = {(file, inode) for file, inode, *_ in seen}
        processes = {pid for _, _, pid, *_ in seen}
        assert len(files) == self.executors
        # 16 units, and each process says that its count of loads never went up between them.
        assert len({(pid, loads) for _, _, pid, loads, _ in seen}) == len(processes) <= 2


class SparkClusterContract(SparkEngineContract, ClusterContract):
    """What a cluster and a Connect server show for local Spark, too: the driver does the same for both."""

    def test_cloning_and_pickling_a_search(self, engine):
        assert copy.deepcopy(engine) is engine
        asleep = pickle.loads(pickle.dumps(engine))
        with pytest.raises(self.error, match="new SparkEngine"):
            _ = asleep.slots

    def test_two_engines_share_a_session(self, engine):
        def ok(data):
            yield data["x"].sum()

        other = SparkEngine(engine.session)
        data = {"x": np.arange(5)}
        assert run(engine, [unit(ok)], data) == run(other, [unit(ok)], data) == {0: [10]}
