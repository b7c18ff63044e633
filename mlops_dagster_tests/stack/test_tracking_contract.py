"""Our tracker, on an SQLite database and on an MLflow server."""

from __future__ import annotations

import shutil
import uuid

import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestRegressor

from mlops_dagster.stack.tracking import MODEL_TRAINING, ChildRun, MlflowTracker
from mlops_dagster_tests.contracts.lost_answers import LosesAnswers
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
        assert run.url == f"http://127.0.0.1:5000/#/experiments/{run.experiment_id}/runs/{run.run_id}?{MODEL_TRAINING}"


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
        assert run.url == f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}?{MODEL_TRAINING}"


@pytest.mark.slow
def test_an_answer_that_was_lost_makes_no_twins(server, tmp_path):
    """MLflow did what it was asked, and its client asks again."""
    kinds = ("POST .*experiments/create", "POST .*runs/create", "POST .*runs/outputs", "POST .*logged-models$")
    kinds += ("POST .*registered-models/create", "POST .*model-versions/create", "POST .*log-batch")
    rows = pd.DataFrame({"AdjClose": range(20)}, dtype=float)
    forest = RandomForestRegressor(n_estimators=2, random_state=0).fit(rows, rows["AdjClose"])
    with LosesAnswers(server, *kinds) as proxy:
        tracker = MlflowTracker(f"lost-{uuid.uuid4().hex}", proxy.url, state_dir=tmp_path / "state")
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            run.log_curve("score", [(1, 0.5), (2, 0.25)])
            logged = run.log_model(forest, input_example=rows.head(3), digest="d1g35t")
            tags = {"model_digest": "d1g35t", "model_file_sha256": logged.file_sha256}
            assert tracker.registry.register("LOST", logged, run.run_id, tags) == "1"
            assert proxy.kinds == []  # each was lost once
            # What a slow server has made of the first request appears late.
            tags = MlflowClient(server).get_run(run.run_id).data.tags
            MlflowClient(server).create_run(run.experiment_id, run_name="GSPC-honest", tags=tags)
            proxy.kinds = ["POST .*runs/create"]
            run.log_children([ChildRun("one", {"a": 1}, {"score": 1.0})])
    client = MlflowClient(server)
    runs = client.search_runs([run.experiment_id])
    assert sorted(one.info.run_name for one in runs) == ["GSPC-honest", "one"]
    assert {one.info.status for one in runs} == {"FINISHED"}
    assert len(client.get_metric_history(run.run_id, "score")) == 2
    assert [one.model_id for one in client.search_logged_models([run.experiment_id])] == [logged.model_id]
    (version,) = client.search_model_versions(f"run_id = '{run.run_id}'")
    assert version.version == client.get_model_version_by_alias("mlops_dagster.LOST", "challenger").version == "1"
