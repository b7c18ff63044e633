"""What every tracker does, whichever client and whichever MLflow it logs through."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import mlflow.artifacts
import mlflow.models
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sklearn.ensemble import RandomForestRegressor
from sklearn.preprocessing import FunctionTransformer

from mlops_dagster.errors import ParameterError
from mlops_dagster.stack.tracking import ChildRun, MlflowTracker, Origin, TrackingError

ORIGIN = Origin("dagster", "5fd8cbd1-7b0b-4f3c-9e58-3f2c5a1c2b77", "http://127.0.0.1:3000/runs/5fd8cbd1")
PNG = bytes.fromhex("89504e470d0a1a0a") + b"not looked at any further"

MakeTracker = Callable[..., MlflowTracker]


class TrackerContract:
    """Inherit, and give a fixture `make_tracker` whose calls take what :class:`MlflowTracker` takes by keyword."""

    @pytest.fixture(autouse=True)
    def nothing_is_left_in_the_working_directory(self, tmp_path, monkeypatch):
        """MLflow's global client would put a database or a folder there."""
        folder = tmp_path / "cwd"
        folder.mkdir()
        monkeypatch.chdir(folder)
        yield
        assert list(folder.iterdir()) == []

    @pytest.fixture
    def tracker(self, make_tracker: MakeTracker) -> MlflowTracker:
        return make_tracker()

    @staticmethod
    def stored(tracker: MlflowTracker, run_id: str) -> Run:
        return tracker.connect()[0].get_run(run_id)

    def test_what_is_logged_is_there(self, tracker):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={"symbol": "GSPC"}) as run:
            assert self.stored(tracker, run.run_id).info.status == "RUNNING"
            run.log_params({"max_depth": 80, "bootstrap": True, "recipe": "honest"})
            run.log_metrics({"rmse": 74.5, "train_rows": np.int64(3336)})
            run.log_metrics({"r2": np.float64(-2.28)})
            run.set_tags({"champion": "no"})
        stored = self.stored(tracker, run.run_id)
        assert stored.info.status == "FINISHED"
        assert stored.info.end_time is not None
        assert stored.data.params == {"max_depth": "80", "bootstrap": "True", "recipe": "honest"}
        assert stored.data.metrics == {"rmse": 74.5, "train_rows": 3336.0, "r2": -2.28}
        assert stored.data.tags["symbol"] == "GSPC"
        assert stored.data.tags["champion"] == "no"
        assert (run.experiment_id, run.run_id) == (stored.info.experiment_id, stored.info.run_id)

    def test_links_go_both_ways(self, tracker):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            pass
        tags = self.stored(tracker, run.run_id).data.tags
        assert tags["orchestrator"] == "dagster"
        assert tags["orchestrator_run_id"] == ORIGIN.run_id
        assert tags["orchestrator_url"] == ORIGIN.url
        assert f"]({ORIGIN.url})" in tags["mlflow.note.content"]
        assert run.url is not None
        assert f"/#/experiments/{run.experiment_id}/runs/{run.run_id}" in run.url

    def test_plots_are_artifacts(self, tracker):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            run.log_files({"plots/forecast.png": PNG, "lineage.png": PNG})
        client, _ = tracker.connect()
        assert [entry.path for entry in client.list_artifacts(run.run_id, "plots")] == ["plots/forecast.png"]
        assert Path(client.download_artifacts(run.run_id, "plots/forecast.png")).read_bytes() == PNG
        assert "lineage.png" in [entry.path for entry in client.list_artifacts(run.run_id)]

    def test_a_table_is_an_artifact_that_mlflow_shows_as_one(self, tracker):
        table = pd.DataFrame(
            {"candidate": [0, 1], "params": ['{"max_depth": 3}', '{"max_depth": 4}'], "s": [0.5, np.nan]}
        )
        with tracker.run("GSPC-search", origin=ORIGIN, tags={}) as run:
            run.log_table("candidates.json", table)
            run.log_files({"grid.json": '{"max_depth": [3, 4]}'})
        client, _ = tracker.connect()
        content = json.loads(Path(client.download_artifacts(run.run_id, "candidates.json")).read_text())
        assert content["columns"] == ["candidate", "params", "s"]
        assert content["data"][0] == [0, '{"max_depth": 3}', 0.5]
        assert len(content["data"]) == 2
        assert "candidates.json" in self.stored(tracker, run.run_id).data.tags["mlflow.loggedArtifacts"]
        grid = Path(client.download_artifacts(run.run_id, "grid.json")).read_text()
        assert json.loads(grid) == {"max_depth": [3, 4]}

    def test_a_curve_is_a_metric_with_steps(self, tracker):
        points = [(trees, 1 / trees) for trees in range(1, 1501)]  # more than a request takes
        with tracker.run("GSPC-search", origin=ORIGIN, tags={}) as run:
            run.log_curve("score", points)
        history = tracker.connect()[0].get_metric_history(run.run_id, "score")
        assert sorted((metric.step, metric.value) for metric in history) == points

    def children_of(self, tracker, run, **options):
        client, experiment_id = tracker.connect()
        return client.search_runs([experiment_id], f"tags.mlflow.parentRunId = '{run.run_id}'", **options)

    def test_child_runs_are_whole_and_finished(self, tracker):
        children = [
            ChildRun(
                f"candidate {number}", {"max_depth": number, "bootstrap": True}, {"score": number / 10, "nan": np.nan}
            )
            for number in range(30)
        ]
        with tracker.run("GSPC-search", origin=ORIGIN, tags={"symbol": "GSPC"}) as run:
            run.log_children(children)
            found = {child.info.run_name: child for child in self.children_of(tracker, run)}
        assert set(found) == {child.name for child in children}
        for child in children:
            stored = found[child.name]
            assert stored.info.status == "FINISHED"
            assert stored.info.end_time >= stored.info.start_time
            assert stored.info.lifecycle_stage == "active"
            assert stored.data.params == {"max_depth": str(child.params["max_depth"]), "bootstrap": "True"}
            assert stored.data.metrics["score"] == child.metrics["score"]
            assert np.isnan(stored.data.metrics["nan"])
            assert stored.data.tags["symbol"] == "GSPC"
            assert stored.data.tags["mlflow.runName"] == child.name
            assert stored.data.tags["mlflow.user"]
        assert self.stored(tracker, run.run_id).info.status == "FINISHED"

    def test_child_runs_are_runs_like_others(self, tracker):
        with tracker.run("GSPC-search", origin=ORIGIN, tags={}) as run:
            run.log_children([ChildRun("one", {"a": 1}, {"score": 1.0}), ChildRun("two", {"a": 2}, {"score": 2.0})])
        (best,) = self.children_of(tracker, run, order_by=["metrics.score DESC"], max_results=1)
        client, experiment_id = tracker.connect()
        assert best.info.run_name == "two"
        assert [metric.value for metric in client.get_metric_history(best.info.run_id, "score")] == [2.0]
        (by_param,) = client.search_runs([experiment_id], "params.a = '1'")
        assert by_param.info.run_name == "one"
        client.log_text(best.info.run_id, "a note", "note.txt")
        assert [entry.path for entry in client.list_artifacts(best.info.run_id)] == ["note.txt"]

    def test_child_runs_are_not_runs_of_the_orchestrator(self, tracker):
        """The sensors settle the search's run; its candidates have ended."""
        with tracker.run("GSPC-search", origin=ORIGIN, tags={}) as run:
            run.log_children([ChildRun("one", {}, {})])
        tracker.settle(ORIGIN.run_id, "KILLED")
        assert {child.info.status for child in self.children_of(tracker, run)} == {"FINISHED"}

    def test_a_child_that_is_refused_leaves_none_running(self, tracker):
        bad = ChildRun("bad", {"x" * 300: 1}, {})  # MLflow takes names of up to 250 characters
        with (
            pytest.raises(TrackingError, match="logging child runs"),
            tracker.run("GSPC-search", origin=ORIGIN, tags={}) as run,
        ):
            run.log_children([*(ChildRun(f"good {number}", {"a": 1}, {}) for number in range(5)), bad])
        assert "RUNNING" not in {child.info.status for child in self.children_of(tracker, run)}
        assert self.stored(tracker, run.run_id).info.status == "FAILED"

    def test_a_model_comes_back_as_it_was(self, tracker, tmp_path):
        rows = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 3)), columns=["AdjClose", "Volume", "range"])
        model = RandomForestRegressor(n_estimators=5, random_state=0).fit(rows, rows["AdjClose"] * 2)
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            run.log_params({"n_estimators": 5})
            run.log_metrics({"rmse": 1.5})
            logged = run.log_model(model, input_example=rows.head(3), digest="d1g35t")
        client, _ = tracker.connect()
        kept = client.get_logged_model(logged.model_id)
        folder = Path(
            mlflow.artifacts.download_artifacts(
                kept.artifact_location, dst_path=str(tmp_path), tracking_uri=tracker.tracking_uri
            )
        )

        assert logged.uri == f"models:/{logged.model_id}"
        loaded = mlflow.sklearn.load_model(str(folder))
        assert np.array_equal(loaded.predict(rows), model.predict(rows))

        # It shows on the run's page, with the run's numbers.
        stored = self.stored(tracker, run.run_id)
        assert [output.model_id for output in stored.outputs.model_outputs] == [logged.model_id]
        assert (kept.source_run_id, str(kept.status), kept.name) == (run.run_id, "READY", "model")
        assert kept.params == {"n_estimators": "5"}
        assert {metric.key: metric.value for metric in kept.metrics} == {"rmse": 1.5}
        assert kept.tags["model_digest"] == stored.data.tags["model_digest"] == "d1g35t"
        assert kept.tags["model_file_sha256"] == stored.data.tags["model_file_sha256"] == logged.file_sha256

        info = mlflow.models.Model.load(str(folder))
        assert info.signature.inputs.input_names() == ["AdjClose", "Volume", "range"]
        assert info.signature.outputs is not None
        assert info.saved_input_example_info is not None
        requirements = (folder / "requirements.txt").read_text().split()
        assert {line.split("==")[0] for line in requirements} == {"mlflow", "numpy", "pandas", "scikit-learn", "skops"}

    def test_a_model_is_never_pickled(self, tracker, tmp_path):
        model = RandomForestRegressor(n_estimators=2).fit([[0.0], [1.0]], [0.0, 1.0])
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            logged = run.log_model(model, input_example=pd.DataFrame({"x": [0.0]}), digest="d")
        location = tracker.connect()[0].get_logged_model(logged.model_id).artifact_location
        folder = Path(
            mlflow.artifacts.download_artifacts(location, dst_path=str(tmp_path), tracking_uri=tracker.tracking_uri)
        )
        files = {file.name for file in folder.rglob("*") if file.is_file()}
        assert "model.skops" in files
        assert {Path(file).suffix for file in files} <= {".skops", ".json", ".yaml", ".txt", ""}
        with zipfile.ZipFile(folder / "model.skops") as archive:
            assert {Path(name).suffix for name in archive.namelist()} == {".json", ".npy"}
            for name in archive.namelist():
                if name.endswith(".npy"):
                    np.lib.format.read_array(archive.open(name), allow_pickle=False)

    def test_a_model_with_a_type_that_nobody_trusts_is_refused(self, tracker):
        model = FunctionTransformer(func=exec)
        with (
            pytest.raises(
                ParameterError, match=r"holds builtins\.exec; if you trust them, add them to estimator\.trus"
            ),
            tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run,
        ):
            run.log_model(model, input_example=pd.DataFrame({"x": [0.0]}), digest="d")
        client, experiment_id = tracker.connect()
        assert self.stored(tracker, run.run_id).info.status == "FAILED"
        assert client.search_logged_models([experiment_id]) == []

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (ValueError("the step failed"), "FAILED"),
            (KeyboardInterrupt(), "KILLED"),
            (SystemExit(1), "KILLED"),
        ],
    )
    def test_the_status_says_how_it_ended(self, tracker, error, status):
        with pytest.raises(type(error)) as seen, tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            raise error
        assert seen.value is error
        assert self.stored(tracker, run.run_id).info.status == status

    def test_dagsters_termination_is_a_kill(self, tracker):
        from dagster._core.errors import DagsterExecutionInterruptedError

        with (
            pytest.raises(DagsterExecutionInterruptedError),
            tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run,
        ):
            raise DagsterExecutionInterruptedError
        assert self.stored(tracker, run.run_id).info.status == "KILLED"

    def test_no_active_run_is_left_and_none_is_disturbed(self, tracker):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}):
            pass
        assert mlflow.active_run() is None
        client, experiment_id = tracker.connect()
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(tracker.tracking_uri)
        try:
            with mlflow.start_run(experiment_id=experiment_id) as notebooks_own:
                with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
                    run.log_params({"max_depth": 80})
                assert mlflow.active_run() is notebooks_own
                assert run.run_id != notebooks_own.info.run_id
                assert client.get_run(notebooks_own.info.run_id).info.status == "RUNNING"
        finally:
            mlflow.set_tracking_uri(before)
        assert client.get_run(notebooks_own.info.run_id).data.params == {}

    def test_config_of_dagster_mlflow(self, make_tracker, monkeypatch):
        parent_tracker = make_tracker()
        client, experiment_id = parent_tracker.connect()
        parent = client.create_run(experiment_id, run_name="parent")
        client.set_terminated(parent.info.run_id, "FINISHED")
        parent = client.get_run(parent.info.run_id)
        monkeypatch.setenv("IMAGE_TAG", "v1")
        monkeypatch.delenv("NOT_SET", raising=False)
        monkeypatch.delenv("MLFLOW_SET_BY_US", raising=False)
        tracker = make_tracker(
            parent_run_id=parent.info.run_id,
            env={"MLFLOW_SET_BY_US": "yes"},
            env_to_tag=["IMAGE_TAG", "NOT_SET", "MLFLOW_SET_BY_US"],
            extra_tags={"team": "markets"},
        )
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            pass
        monkeypatch.delenv("MLFLOW_SET_BY_US")
        tags = self.stored(tracker, run.run_id).data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["IMAGE_TAG"] == "v1"
        assert tags["MLFLOW_SET_BY_US"] == "yes"
        assert tags["team"] == "markets"
        assert "NOT_SET" not in tags
        # The parent's own life is its own.
        after = client.get_run(parent.info.run_id)
        assert (after.info.status, after.info.end_time) == ("FINISHED", parent.info.end_time)

    def test_a_run_that_has_ended_leaves_no_note(self, tracker):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}):
            assert len(list(tracker.state_dir.glob("*.run"))) == 1
        with pytest.raises(ValueError, match="x"), tracker.run("GSPC-honest", origin=ORIGIN, tags={}):
            raise ValueError("x")
        assert list(tracker.state_dir.glob("*.run")) == []

    @pytest.mark.parametrize("given", ["FINISHED", "FAILED", "KILLED"])
    def test_a_run_that_is_still_running_is_settled(self, tracker, given):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            client: MlflowClient = tracker.connect()[0]
        client.update_run(run.run_id, status="RUNNING")
        assert tracker.settle("some-other-run", given) == []
        assert tracker.settle(ORIGIN.run_id, given) == [run.run_id]
        assert self.stored(tracker, run.run_id).info.status == given
        assert tracker.settle(ORIGIN.run_id, given) == []

    def test_a_failure_that_was_a_kill_is_settled(self, tracker):
        with pytest.raises(ValueError, match="x"), tracker.run("GSPC-honest", origin=ORIGIN, tags={}) as run:
            raise ValueError("x")
        tracker.settle(ORIGIN.run_id, "KILLED")
        assert self.stored(tracker, run.run_id).info.status == "KILLED"

    def test_scripts_can_read_stdout(self, tracker, capfd):
        with tracker.run("GSPC-honest", origin=ORIGIN, tags={}):
            pass
        assert capfd.readouterr().out == ""
