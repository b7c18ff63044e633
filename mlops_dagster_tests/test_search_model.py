"""The search pipelines in Dagster, on real tables and a real MLflow database."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import dagster as dg
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from mlops_dagster.assets.of_model import search_parameters
from mlops_dagster.definitions import definitions_of
from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.search_results import TIMES
from mlops_dagster.search import Progress
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import Store, store_of
from mlops_dagster.steps import SEARCH_CACHE
from mlops_dagster.steps.progress import ProgressLines
from mlops_dagster_tests.conftest import embedded_plot, mlflow_runs
from mlops_dagster_tests.contracts.dagster_dev import DagsterDev, dagster_dev
from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = pytest.mark.examples

KEY = dg.AssetKey(["stock_price", "grid_search_results"])
GRID = {"max_depth": [2, 4, 6], "max_features": [2, 0.5]}
SMALL = {"grid": GRID, "ranges": {"n_estimators": {"start": 2, "stop": 6, "step": 2}}}


def launch(defs, instance, search=SMALL, prices=None, tags=None, job="search_model_pipeline"):
    return defs.resolve_job_def(job).execute_in_process(
        run_config={
            "ops": {
                "prices__data": {"config": prices or {}},
                "stock_price__grid_search_results": {"config": search},
            }
        },
        partition_key="ACME",
        instance=instance,
        raise_on_error=False,
        tags=tags,
    )


def failure(result):
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    return event.step_key, event.event_specific_data.user_failure_data.description


def metadata_of(instance):
    return instance.get_latest_materialization_event(KEY).asset_materialization.metadata


def test_a_search_leaves_a_table_metadata_and_an_mlflow_run(defs, instance, home):
    result = launch(defs, instance)
    assert result.success
    metadata = metadata_of(instance)
    assert metadata["candidates"].value == metadata["dagster/row_count"].value == 18
    assert set(metadata["best_parameters"].value) == {"max_depth", "max_features", "n_estimators"}
    assert metadata["forest"].value.keys() == shipped("stock_price").parameters.keys()
    assert metadata["trees_asked"].value == 3 * 6 * (2 + 4 + 6)
    best = {one.data["column"]: one.data for one in metadata["best_candidates"].records}  # side by side
    assert best["score"]["1."] == pytest.approx(metadata["best_score"].value, rel=1e-5)
    assert {"1.", "2.", "3."} < best["max_depth"].keys()
    columns = metadata["dagster/column_schema"].value.columns
    assert [column.name for column in columns if not column.description] == []
    for plot in ("heat_map", "parallel_coordinates", "learning_curve"):
        assert embedded_plot(metadata, plot).startswith(b"\x89PNG")
    (run,) = mlflow_runs(home)
    assert f"/get-artifact?path=plots/heat_map.png&run_uuid={run.info.run_id})" in metadata["heat_map"].value
    assert run.info.status == "FINISHED"
    assert run.data.tags["orchestrator_run_id"] == result.run_id
    assert run.info.run_id in metadata["mlflow"].value
    assert run.data.params["best_max_depth"] == str(metadata["best_parameters"].value["max_depth"])


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_the_cluster_pipeline_makes_the_same_table_on_spark(defs, instance, home, monkeypatch):
    pytest.importorskip("pyspark")
    assert launch(defs, instance).success
    shutil.rmtree(load_deployment().state_dir / SEARCH_CACHE)  # so that Spark has everything to grow
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "local[2]")
    assert launch(definitions_of(load_deployment()), instance, job="cluster_search_model_pipeline").success
    store = store_of(load_deployment(), shipped("stock_price"))
    here, _ = store.read("grid_search_results", "ACME", version=0)
    there, table = store.read("grid_search_results", "ACME")
    assert table.metadata["engine"] == "spark"
    work = json.loads(table.metadata["work"])
    assert (work["trees_grown"] > 0, work["trees_reused"]) == (True, 0)
    pd.testing.assert_frame_equal(here.drop(columns=[*TIMES]), there.drop(columns=[*TIMES]), rtol=1e-12)


def test_every_check_of_the_search_is_evaluated(defs, instance):
    result = launch(defs, instance)
    evaluations = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert evaluations["no_candidate_failed"].passed
    assert {"no_candidate_failed", "best_is_inside_the_grid"} < set(evaluations)
    assert evaluations["best_is_inside_the_grid"].severity == dg.AssetCheckSeverity.WARN


def test_the_same_search_again_is_the_same_data_and_grows_nothing(defs, instance):
    def version():
        event = instance.get_latest_materialization_event(KEY)
        return event.asset_materialization.tags["dagster/data_version"]

    launch(defs, instance)
    first = version()
    launch(defs, instance)
    assert version() == first
    work = metadata_of(instance)["work"].value
    assert (work["trees_grown"], work["trees_reused"] > 0) == (0, True)
    launch(defs, instance, search={**SMALL, "folds": 2})
    assert version() != first


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"grid": {"max_depth": [0, 5]}}, "grid.max_depth=0 (int): give an integer from 1 to 1000."),
        ({"grid": {"max_depth": []}}, "grid.max_depth=[] (list): the list is empty"),
        ({"grid": {}}, "grid={} (dict): give values"),
        ({"preset": "small", "grid": {"max_depth": [3]}}, "preset='small' (str): give a preset or a grid, not both"),
        (
            {"grid": {"max_depth": [3]}, "ranges": {"max_depth": {"start": 1, "stop": 2, "step": 1}}},
            "ranges.max_depth=",
        ),
        ({"ranges": {"max_depth": {"start": 1, "stop": 10**12, "step": 1}}}, "grid.max_depth.stop=1000000000000"),
        (
            {"grid": {name: list(range(2, 202)) for name in ("max_depth", "n_estimators", "min_samples_leaf")}},
            "8,000,000 candidates; at most 100,000",
        ),
        ({"folds": 1}, "folds=1 (int)"),
        ({"scoring": "rmse"}, "scoring='rmse'"),
    ],
)
def test_a_bad_grid_fails_the_first_step_before_any_work(defs, instance, home, search, said):
    step, message = failure(launch(defs, instance, search=search))
    assert step == "prices__data"
    assert said in message
    assert not (home / "store").exists()


@pytest.mark.parametrize(
    "search",
    [
        {"grid": {"max_depth": 5}},
        {"grid": {"max_depth": ["5"]}},
        {"grid": {"max_depth": [2.5]}},
        {"grid": {"max_deph": [5]}},
        {"ranges": {"max_depth": {"start": 1, "stop": 2}}},
        {"preset": "huge"},
        {"candidates": "five"},
    ],
)
def test_what_dagster_can_tell_is_refused_at_launch(defs, instance, search):
    with pytest.raises(dg.DagsterInvalidConfigError):
        launch(defs, instance, search=search)


def test_one_file_for_a_backfill_is_refused(defs, instance, price_file):
    path = {"path": str(price_file)}
    assert launch(defs, instance, prices=path).success
    step, message = failure(launch(defs, instance, prices=path, tags={"dagster/backfill": "abc"}))
    assert step == "prices__data"
    assert "write {symbol}" in message


def test_lists_and_ranges_are_one_grid():
    merged = search_parameters(
        {"grid": {"max_depth": [3], "bootstrap": None}, "ranges": {"n_estimators": {"start": 1}}}
    )
    assert merged == {"grid": {"max_depth": [3], "n_estimators": {"start": 1}}}
    assert search_parameters({"preset": "small", "grid": None, "ranges": None, "cv": None}) == {
        "preset": "small",
        "cv": None,
    }
    with pytest.raises(ParameterError, match=r"ranges.max_depth"):
        search_parameters({"grid": {"max_depth": [3]}, "ranges": {"max_depth": {"start": 1}}})


def test_children_are_runs_below_the_search(defs, instance, home):
    launch(defs, instance, search={**SMALL, "candidates": "children"})
    runs = mlflow_runs(home)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 18
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    best = min(children, key=lambda run: run.data.metrics["rank_test_score"])
    assert best.data.metrics["mean_test_score"] == parent.data.metrics["best_score"]
    assert re.fullmatch(r"\d\d: max_depth=\d+, .*n_estimators=\d+.*", best.info.run_name)


def test_progress_is_a_line_now_and_then(monkeypatch):
    lines, clock = [], SimpleNamespace(now=0.0)
    monkeypatch.setattr("mlops_dagster.steps.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    tell = ProgressLines(lines.append, seconds=10)
    for seconds in range(0, 31):
        clock.now = float(seconds)
        tell(Progress(seconds * 10, 1000, 1, 5, float(seconds)))
    assert lines == [
        "1,000 trees to grow in 5 units of work",
        "100 of 1,000 trees (10 %), about 90 s left",
        "200 of 1,000 trees (20 %), about 80 s left",
        "300 of 1,000 trees (30 %), about 70 s left",
    ]


# ------------------------------------------------------------------------------------------- under a real daemon


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """`dagster dev` on the project's own definitions and a state folder of its own."""
    home = tmp_path_factory.mktemp("dev")
    env = {"MLOPS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    subprocess.run([sys.executable, "-m", "mlops_dagster.cli", "init"], env={**os.environ, **env}, check=True)
    with dagster_dev(home, env=env, kind=SearchDev) as server:
        yield server


class SearchDev(DagsterDev):
    def search(self, config, symbol="GSPC"):
        return self.launch(
            "search_model_pipeline", {"stock_price__grid_search_results": {"config": config}}, symbol=symbol
        )

    def runs_of(self, job):
        query = (
            "query($f: RunsFilter!) {runsOrError(filter: $f) {... on Runs {results {runId status tags {key value}}}}}"
        )
        return self.ask(query, f={"pipelineName": job})["results"]


@pytest.mark.slow
@pytest.mark.xdist_group("dagster dev")
def test_a_search_that_is_terminated_stops_and_changes_no_table(dev):
    def mlflow(run_id):
        client = MlflowClient(f"sqlite:///{dev.home}/mlflow/mlflow.db")
        experiment = client.get_experiment_by_name("mlops_dagster-stock_price")
        return client.search_runs([experiment.experiment_id], f"tags.orchestrator_run_id = '{run_id}'")

    # Ten thousand trees a fold: long enough to be stopped in the middle.
    run_id = dev.search({"grid": {"n_estimators": [10000], "max_depth": [50], "min_samples_leaf": [1]}}, symbol="IXIC")
    eventually(lambda: [run for run in mlflow(run_id) if run.data.params])
    pid = dev.pid_of(run_id)
    assert psutil.pid_exists(pid)
    dev.terminate(run_id)
    assert dev.ended(run_id) == "CANCELED"
    eventually(lambda: [run.info.status for run in mlflow(run_id)] == ["KILLED"])
    assert Store(dev.home / "store" / "stock_price").current("grid_search_results", "IXIC") is None
    eventually(lambda: not psutil.pid_exists(pid))
