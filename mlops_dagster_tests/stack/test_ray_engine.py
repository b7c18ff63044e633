"""The Ray engine on a Ray of this machine."""

from __future__ import annotations

import secrets
import signal

import numpy as np
import pytest

from mlops_dagster.stack.ray_engine import RayEngine, RayError
from mlops_dagster_tests.contracts.cluster_engine import ClusterContract, run, unit
from mlops_dagster_tests.contracts.servers import free_port

NO_RAY = 'Ray isn\'t installed: pip install "mlops_dagster[ray]"'
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


def test_an_address_where_nobody_is_is_said_at_once():
    pytest.importorskip("ray", reason=NO_RAY)
    port = free_port()
    with pytest.raises(RayError, match=rf"no Ray at 127\.0\.0\.1:{port} .*refused"):
        _ = RayEngine(f"127.0.0.1:{port}").slots


class TestOnThisMachine(ClusterContract):
    error = RayError

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # in place of a file in the user's home
            environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
            ray = pytest.importorskip("ray", reason=NO_RAY)
            before = signal.getsignal(signal.SIGTERM)
            ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2**28, log_to_driver=False)
            try:
                yield RayEngine()
            finally:
                ray.shutdown()
                signal.signal(signal.SIGTERM, before)

    def nothing_runs(self, engine):
        import ray

        return ray.available_resources().get("CPU") == 2

    def test_data_is_put_once_and_loaded_once_per_process(self, engine):
        def look(data):
            import os
            import time

            from mlops_dagster.stack import ray_engine

            time.sleep(0.2)  # so that no process is done with all of them before the other has begun
            yield os.getpid(), ray_engine.loads, data["x"].flags.owndata, float(data["x"].sum())

        found = run(engine, [unit(look) for _ in range(16)], {"x": np.full(100_000, 0.5)})
        seen = [result for (result,) in found.values()]
        assert {(owned, total) for *_, owned, total in seen} == {(False, 50_000.0)}  # it lies where all see it
        # 16 units, and each process says that its count of loads never went up between them.
        assert len({(pid, loads) for pid, loads, *_ in seen}) == len({pid for pid, *_ in seen}) <= 2

    def test_a_unit_that_kills_each_of_its_processes_is_named(self, engine):
        def die(data):
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
            yield

        with pytest.raises(RayError, match=r"fold 7: Ray gave up \(WorkerCrashedError\): .*died"):
            run(engine, [unit(die, name="fold 7")])
        self.assert_nothing_runs(engine)
