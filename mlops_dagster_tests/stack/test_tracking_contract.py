"""Our tracker, on an SQLite database and on an MLflow server."""

from __future__ import annotations

import shutil
import uuid

import pytest

from mlops_dagster.stack.tracking import MlflowTracker
from mlops_dagster_tests.contracts.servers import mlflow_server
from mlops_dagster_tests.contracts.tracker import ORIGIN, TrackerContract


class TestOnSqlite(TrackerContract):
    @pytest.fixture
    def make_tracker(self, tmp_path, empty_mlflow):
        shutil.copy(empty_mlflow, tmp_path / "mlflow.db")

        def make(**settings):
            return MlflowTracker(
                "tests",
                f"sqlite:///{tmp_path}/mlflow.db",
                state_dir=tmp_path / "state",
                ui_url="http://127.0.0.1:5000/",
                **settings,
            )

        return make

    def test_the_link_is_the_uis(self, tracker):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            pass
        assert run.url == f"http://127.0.0.1:5000/#/experiments/{run.experiment_id}/runs/{run.run_id}"


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
            return MlflowTracker(experiment, server, state_dir=tmp_path / "state", **settings)

        return make

    def test_the_link_is_the_servers(self, tracker, server):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            pass
        assert run.url == f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
