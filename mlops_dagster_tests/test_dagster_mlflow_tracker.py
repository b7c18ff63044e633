"""dagster-mlflow behind our interface: the same contract, and what is its own."""

from __future__ import annotations

import shutil
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from dagster import DagsterRun, InitResourceContext, build_init_resource_context
from dagster._core.definitions.resource_definition import ResourceDefinition

from mlops_dagster.dagster_mlflow_tracker import DagsterMlflowTracker
from mlops_dagster.stack.tracking import TrackingError
from mlops_dagster_tests.contracts.lost_answers import LosesAnswers
from mlops_dagster_tests.contracts.servers import mlflow_server
from mlops_dagster_tests.contracts.tracker import ORIGIN, TrackerContract


def context_of(run_id):
    """What Dagster hands to a resource inside of a run."""
    outside = build_init_resource_context()
    return InitResourceContext(
        resource_config={},
        resources=outside.resources,
        resource_def=ResourceDefinition.none_resource(),
        all_resource_defs={},
        dagster_run=DagsterRun(job_name="build_model_pipeline", run_id=run_id),
        log_manager=outside.log,
    )


@pytest.fixture(autouse=True)
def global_uri_as_before():
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


class TestOnSqlite(TrackerContract):
    @pytest.fixture
    def make_tracker(self, tmp_path, empty_mlflow):
        shutil.copy(empty_mlflow, tmp_path / "mlflow.db")

        def make(run_id=ORIGIN.run_id, **settings):
            return DagsterMlflowTracker(
                "tests",
                f"sqlite:///{tmp_path}/mlflow.db",
                context=context_of(run_id),
                state_dir=tmp_path / "state",
                ui_url="http://127.0.0.1:5000/",
                **settings,
            )

        return make

    def test_one_dagster_run_is_one_mlflow_run(self, make_tracker):
        with make_tracker().run("first", origin=ORIGIN, tags={}) as first:
            first.log_params({"a": 1})
        with make_tracker().run("second", origin=ORIGIN, tags={}) as second:
            second.log_params({"b": 2})
        assert first.run_id == second.run_id
        stored = self.stored(make_tracker(), first.run_id)
        assert stored.data.params == {"a": "1", "b": "2"}
        assert stored.data.tags["dagster_run_id"] == ORIGIN.run_id

    def test_parallel_steps_share_one_mlflow_run(self, make_tracker):
        start = threading.Barrier(6)

        def step(number):
            start.wait()
            with make_tracker().run(f"step{number}", origin=ORIGIN, tags={}) as run:
                run.log_params({f"p{number}": number})
            return run.run_id

        make_tracker().connect()
        with ThreadPoolExecutor(6) as threads:
            (run_id,) = set(threads.map(step, range(6)))
        stored = self.stored(make_tracker(), run_id)
        assert stored.data.params == {f"p{number}": str(number) for number in range(6)}
        assert stored.info.status == "FINISHED"

    def test_another_dagster_run_is_another_mlflow_run(self, make_tracker):
        with make_tracker().run("first", origin=ORIGIN, tags={}) as first:
            pass
        with make_tracker("another").run("first", origin=ORIGIN, tags={}) as second:
            pass
        assert first.run_id != second.run_id

    def test_a_failed_step_makes_the_run_fail_until_it_is_tried_again(self, make_tracker):
        def statuses():
            return self.stored(make_tracker(), run.run_id).info.status

        with pytest.raises(ValueError, match="x"), make_tracker().run("first", origin=ORIGIN, tags={}) as run:
            raise ValueError("x")
        with make_tracker().run("second", origin=ORIGIN, tags={}):
            assert statuses() == "RUNNING"
        assert statuses() == "FAILED"
        with make_tracker().run("first", origin=ORIGIN, tags={}):
            pass
        assert statuses() == "FINISHED"

    @pytest.mark.parametrize("verdict", ["FINISHED", "FAILED", "KILLED"])
    def test_the_dagster_runs_verdict_is_the_mlflow_runs(self, tracker, verdict):
        with tracker.run("first", origin=ORIGIN, tags={}) as run:
            pass
        tracker.settle(ORIGIN.run_id, verdict)
        assert self.stored(tracker, run.run_id).info.status == verdict

    def test_outside_of_dagster_it_says_so(self, tmp_path, make_tracker):
        outside = make_tracker()
        outside._context = build_init_resource_context()
        with (
            pytest.raises(TrackingError, match="inside of a Dagster run only; elsewhere give 'mlops'"),
            outside.run("first", origin=ORIGIN, tags={}),
        ):
            pytest.fail("nothing may be begun")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.mark.slow
class TestOnAServer(TrackerContract):
    @pytest.fixture
    def make_tracker(self, tmp_path, server):
        experiment = f"tests-{uuid.uuid4().hex}"

        def make(**settings):
            return DagsterMlflowTracker(
                experiment, server, context=context_of(ORIGIN.run_id), state_dir=tmp_path / "state", **settings
            )

        return make

    def test_an_answer_that_was_lost_makes_no_twin(self, tmp_path, server):
        with LosesAnswers(server, "POST .*runs/create") as proxy:
            settings = {"context": context_of(ORIGIN.run_id), "state_dir": tmp_path / "state"}
            tracker = DagsterMlflowTracker(f"lost-{uuid.uuid4().hex}", proxy.url, **settings)
            with tracker.run("first", origin=ORIGIN, tags={}) as run:
                assert proxy.kinds == []
                # What a slow server has made of the first request appears late.
                mlflow.MlflowClient(server).create_run(run.experiment_id, tags={"dagster_run_id": ORIGIN.run_id})
            with tracker.run("second", origin=ORIGIN, tags={}) as again:
                pass
        (only,) = mlflow.MlflowClient(server).search_runs([run.experiment_id])
        assert {only.info.run_id, run.run_id, again.run_id} == {run.run_id}
        assert only.info.status == "FINISHED"
