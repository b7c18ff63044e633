"""Many partitions in one run, in Dagster and in the shell: what goes wrong for some, and what that is to the others."""

import json
import shutil
import threading
from collections import Counter

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.definitions import definitions_of
from mlops_dagster.instance import prepare_instance
from mlops_dagster.shell.report import report
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import store_of
from mlops_dagster.steps.checks import checks_of
from mlops_dagster_tests.conftest import mlflow_runs
from mlops_dagster_tests.contracts.servers import eventually, free_port, mlflow_server

DECLARATION = """\
type: mlops_dagster.SklearnModel
attributes:
  task: regression
  data:
    files: {path: "../../series/{series}.csv"}
  contract:
    day: {type: date, unique: true}
    load: {type: number, minimum: 0}
  key: [day]
  time: day
  partitions: {name: series}
  features: .features:make
  target: {column: load, horizon: 1}
  split: {kind: chronological, test_size: 0.25}
  estimator:
    class: sklearn.tree.DecisionTreeRegressor
    arguments: {random_state: 0}
  parameters:
    max_depth: {default: 2, minimum: 1, maximum: 10, description: How deep it grows.}
  metrics: [neg_root_mean_squared_error]
  baseline: mean
"""
# What happens to whoever makes the features of a series that begins with such a load.
FEATURES = """\
import os, signal, time
from pathlib import Path

def make(rows):
    trouble, once = rows["load"].iloc[0], Path(__file__).with_name("killed_once")
    if trouble == 1002 or (trouble == 1001 and not once.exists()):
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == 1003:
        bytearray(1 << 62)
    if trouble == 1004:
        time.sleep(3600)
    asks, gone = (Path(__file__).with_name(name) for name in ("asks", "gone"))
    if trouble == 1005:
        asks.touch()
        while not gone.exists():
            time.sleep(0.05)
    return rows.assign(lag=rows["load"].shift(1))[["load", "lag"]]
"""
JOB = "load_build_model_pipeline"
STEPS = ("data", "training_set", "trained_model", "champion_model")


@pytest.fixture
def series(tmp_path, monkeypatch, home):
    """A project with a model of each of some series; returns what writes one, its first load as it is told."""
    folder = tmp_path / "defs" / "load"
    folder.mkdir(parents=True)
    (tmp_path / "series").mkdir()
    (folder / "defs.yaml").write_text(DECLARATION)
    (folder / "features.py").write_text(FEATURES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_RUNS__PROCESSES", "2")

    def write(name, first=50.0):
        load = 50 + np.cumsum(np.random.default_rng(len(name) + ord(name[-1])).normal(0, 1, 90))
        load[0] = first
        days = pd.date_range("2024-01-01", periods=90).strftime("%Y-%m-%d")
        pd.DataFrame({"day": days, "load": load.round(3)}).to_csv(tmp_path / "series" / f"{name}.csv", index=False)

    return write


@pytest.mark.slow
def test_what_goes_wrong_for_one_partition_is_said_of_it_and_stops_no_other(mlops, series, home, tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_RUNS__SECONDS_PER_PARTITION", "30")
    bad = {"broken": -1, "dies": 1002, "huge": 1003, "endless": 1004}
    for name, first in {**bad, "good": 50, "unlucky": 1001}.items():
        series(name, first)
    done = mlops("build-model", "--all", "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert list(said["symbols"]) == ["good", "unlucky"]
    errors = {name: one["message"] for name, one in said["failed"].items()}
    assert "is below the minimum 0" in errors["broken"]
    assert "ended by SIGKILL, 2 times" in errors["dies"]
    assert said["failed"]["huge"]["error"] == "MemoryError" or "MemoryError" in errors["huge"]
    assert "longer than 30 s" in errors["endless"]
    assert "MLOPS_RUNS__SECONDS_PER_PARTITION" in errors["endless"]
    runs = mlflow_runs(home)
    assert Counter(run.data.tags["symbol"] for run in runs) == {"good": 1, "unlucky": 1}
    assert {run.info.status for run in runs} == {"FINISHED"}
    monkeypatch.delenv("MLOPS_RUNS__SECONDS_PER_PARTITION")
    # What was mended is made, by a list; a pattern finds the others.
    for name in bad:
        series(name)
    (tmp_path / "mended").write_text("broken  # was below 0\n\nhuge\n")
    done = mlops("build-model", "--partitions-file", "mended", "--series", "d*", "--series", "[e]*", "--json")
    assert sorted(json.loads(done.stdout)["symbols"]) == ["broken", "dies", "endless", "huge"]
    for wrong, cure in (("z*", "no partition fits this pattern"), ("../x", "give 1 to 32 letters")):
        assert cure in mlops("build-model", "--series", wrong).stderr
    assert "it lists no partition" in mlops("build-model", "--partitions-file", "/dev/null").stderr


@pytest.mark.slow
def test_a_tracking_server_that_is_started_again_costs_no_partition(mlops, series, home, tmp_path, monkeypatch):
    for name, first in {"A1": 50, "A2": 1005, "A3": 50, "A4": 50}.items():
        series(name, first)
    url = f"http://127.0.0.1:{(port := free_port())}"
    monkeypatch.setenv("MLOPS_TRACKING__MLFLOW_TRACKING_URI", url)
    refused = mlops("build-model", "--all")
    assert "no MLflow server answers" in refused.stderr
    assert not (home / "store").exists()  # nothing was made before
    asks, gone = (tmp_path / "defs" / "load" / name for name in ("asks", "gone"))
    there, over = threading.Event(), threading.Event()

    def serve():
        with mlflow_server(tmp_path / "served", port):
            there.set()
            eventually(asks.exists)
        gone.touch()
        with mlflow_server(tmp_path / "served", port):
            over.wait()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        there.wait()
        done = mlops("build-model", "--all", "--json")
        assert done.returncode == 0, done.stderr
        client = MlflowClient(url)
        runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    finally:
        gone.touch()
        over.set()
        serving.join()
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert Counter(run.data.tags["symbol"] for run in runs) == dict.fromkeys(["A1", "A2", "A3", "A4"], 1)


@pytest.fixture
def dagster(series, home, empty_dagster):
    """A Dagster instance; returns it, what runs the job for a range of series, and the model."""
    shutil.copytree(empty_dagster, home / "dagster")
    prepare_instance(load_deployment())
    defs, model = definitions_of(load_deployment()), OfModel(find_model("load"))
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:

        def run(*keys):
            instance.add_dynamic_partitions("load_series", list(keys))
            tags = {"dagster/partition": keys[0]}
            if len(keys) > 1:
                tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
            job = defs.resolve_job_def(JOB)
            return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)

        yield instance, run, model


def made(instance, model, partition):
    """What Dagster has of a partition: by step, its materialisations without what differs between two homes."""
    found = {}
    for step in STEPS:
        wanted = dg.AssetRecordsFilter(model.key(step), asset_partitions=[partition])
        found[step] = [one.asset_materialization for one in instance.fetch_materializations(wanted, limit=10).records]
    return found


def answers(instance, model, partition):
    """By the name of a check what it has said of a partition, the newest first."""
    found = {}
    for check in checks_of(model.declaration):
        key = dg.AssetCheckKey(model.key(check.step), check.name)
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=20)
        of_partition = [one for one in records if one.partition == partition]
        assert of_partition[0].status.value == "SUCCEEDED", (check.name, partition)
        events = [one.event.dagster_event.event_specific_data for one in of_partition if one.event]
        events = [one for one in events if isinstance(one, dg.AssetCheckEvaluation)]
        found[check.name] = [(one.passed, one.severity, one.description) for one in events]
    return found


def job_of_many():
    return definitions_of(load_deployment()).resolve_job_def(JOB)


def test_many_partitions_are_reported_all_at_once(series, home, tmp_path, capsys):
    model = find_model("load")
    store, then = store_of(load_deployment(), model), pd.Timestamp("2026-01-02 03:04").as_unit("us")
    series("never")
    for number in range(25):
        good = number >= 5
        decision = {
            "decided_at": then,
            "challenger": "1",
            "champion": "1" if good else None,
            "outcome": "first" if good else "worse_than_baseline",
            "reason": "It is the first." if good else "The baseline is better.",
            "metric": "root_mean_squared_error",
            "model_digest": f"{number:064x}",
            "promoted": good,
            "challenger_score": 1.25 - 0.05 * number,
            "baseline_score": 1.0,
        }
        store.write("champion_model", f"P{number:02}", pd.DataFrame([decision]))
    report()
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in ("with a champion 20", "good enough 5", "never built 1 (never)", "no better than the baseline 6"):
        assert part in said
    assert "-0.25" in said
    assert "P09" in said
    assert "P10" not in said  # it isn't among the worst ten
    report(html=tmp_path / "state.html")
    page = (tmp_path / "state.html").read_text()
    assert 0 < page.index("load: all partitions") < page.index("data:image/png") < page.index("<h2>Champions")
    assert page.index("P00") < page.index("P09")
    assert "P10" not in page


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_sparks_executors_make_what_processes_make(mlops, series, home, monkeypatch):
    pytest.importorskip("pyspark")
    for name, first in {"A1": 50, "A2": 50, "A3": -1}.items():
        series(name, first)
    said = [json.loads(mlops("build-model", "--all", "--json").stdout)]
    monkeypatch.setenv("MLOPS_SPARK__PARTITIONS", "true")
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "local[2]")
    monkeypatch.setenv("MLOPS_HOME", str(home.with_name("other")))
    said.append(json.loads(mlops("build-model", "--all", "--json").stdout))
    assert [list(one["symbols"]) for one in said] == [["A1", "A2"]] * 2
    for name in ("A1", "A2"):
        here, there = (one["symbols"][name] for one in said)
        for step in STEPS:
            for what in ("data_version", "metrics", "columns", "outcome"):
                assert here[step].get(what) == there[step].get(what), (name, step, what)
    assert said[0]["failed"] == said[1]["failed"]


@pytest.mark.slow
def test_a_run_of_many_makes_what_runs_of_one_make_and_its_re_execution_what_is_missing(dagster, series, home):
    instance, run, model = dagster
    for name, first in {"A1": 50, "A2": -1, "A3": 50}.items():
        series(name, first)
    first = run("A1", "A2", "A3")
    assert not first.success
    (failure,) = [event for event in first.all_events if event.is_step_failure]
    assert failure.step_key == "load__data"
    assert "1 of 3 partitions failed. A2 (data): " in failure.step_failure_data.error_display_string
    assert {step: len(some) for step, some in made(instance, model, "A2").items()} == dict.fromkeys(STEPS, 0)
    assert instance.get_materialized_partitions(model.key("champion_model")) == {"A1", "A3"}
    defs = definitions_of(load_deployment())
    (fleet,) = (one for one in defs.assets if one.key == model.key("fleet_report"))
    done = dg.materialize([fleet], resources=defs.resources, instance=instance)
    said = {
        name: one.value for name, one in done.asset_materializations_for_node("load__fleet_report")[0].metadata.items()
    }
    assert (said["champions"], said["failed"]) == (2, 1)
    assert "| never built | 1 (A2) |" in said["summary"]
    assert "partition=A2): data: A2.csv: the rows can't be used" in said["failures"]
    assert "is below the minimum 0" in said["failures"]

    series("A2")
    again = dg.execute_job(
        dg.reconstructable(job_of_many),
        instance=instance,
        reexecution_options=dg.ReexecutionOptions.from_failure(first.run_id, instance),
        tags={**first.dagster_run.tags, "dagster/is_resume_retry": "true"},
    )
    assert again.success
    assert Counter(one.data.tags["symbol"] for one in mlflow_runs(home)) == {"A1": 1, "A2": 1, "A3": 1}
    for key in ("A1", "A2", "A3"):
        assert {step: len(some) for step, some in made(instance, model, key).items()} == dict.fromkeys(STEPS, 1)
        times = 1 if key == "A2" else 2  # each run that is to make a partition answers for it
        assert {len(some) for some in answers(instance, model, key).values()} == {times}

    assert run("A3").success
    for step, (alone, among) in made(instance, model, "A3").items():
        assert alone.tags.keys() == among.tags.keys(), step
        if step == "champion_model":
            continue  # a second decision says other things than a first
        assert alone.metadata.keys() == among.metadata.keys(), step
        same = ("dagster/code_version", "dagster/data_version", "dagster/data_version_is_user_provided")
        assert {tag: alone.tags[tag] for tag in same} == {tag: among.tags[tag] for tag in same}, step
        reports = [one.metadata["report"].value for one in (alone, among)]
        for name in ("metrics", "inputs", "last_rows", "parameters"):
            assert reports[0].get(name) == reports[1].get(name), (step, name)
        assert reports[0]["table"]["digest"] == reports[1]["table"]["digest"]
    for name, (alone, *among) in answers(instance, model, "A3").items():
        assert among == [alone, alone], name
