"""What a pipeline makes is the same wherever its steps run: tables, metrics, model, metadata, MLflow, to the last bit.

Real Dagster, real processes on the stand-in, real MLflow server, tables on an S3 (step launcher) or a volume (Pipes).
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlops_dagster.session import Session
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.tracking import Origin
from mlops_dagster_tests.contracts.databricks_stack import stack_of
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.contracts.workspace import workspace

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.examples, pytest.mark.slow, pytest.mark.xdist_group("databricks")]

# Where things are, and how long they took: all that may differ.
PLACES = {"mlflow", "model_uri", "dagster/uri", "origin", "databricks_run"}
DURATIONS = {"mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time", "refit_time", "seconds"}
# When a decision was made, and in which run.
WHEN = {"decided_at", "made_at", "run_id"}
PREDICTIONS = ("predictions", "prediction_quality")


def tables(stack, *names):
    found = {}
    for name in names:
        frame, version = stack.store.read(name, "ACME")
        found[name] = (frame.drop(columns=[column for column in frame if column in DURATIONS | WHEN]), version)
    return found


def tracked(stack, mlflow_url):
    """What MLflow has of a stack's runs: by the step, parameters, metrics, tags and artifacts."""
    client = MlflowClient(mlflow_url)
    experiment = client.get_experiment_by_name(f"{stack.name}-stock_price")
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.status == "FINISHED"
        artifacts, folders = set(), [""]
        while folders:
            for entry in client.list_artifacts(run.info.run_id, folders.pop()):
                folders += [entry.path] if entry.is_dir else []
                artifacts |= set() if entry.is_dir else {entry.path}
        found[run.data.tags["mlflow.runName"]] = {
            "params": run.data.params,
            "metrics": {name: value for name, value in run.data.metrics.items() if not timed(name)},
            "tags": sorted(run.data.tags),
            "artifacts": artifacts,
        }
    return found


def timed(name):
    return "seconds" in name or "time" in name


def assert_same(one, other, *names):
    """Compare two (stack, launched) pairs."""
    (its_stack, its), (here_stack, here) = one, other
    assert set(its.materializations) == set(here.materializations)
    for asset, metadata in here.materializations.items():
        assert set(its.materializations[asset]) - {"databricks_run"} == set(metadata)
    its_tables, here_tables = (tables(stack, *names) for stack in (its_stack, here_stack))
    for name in names:
        pd.testing.assert_frame_equal(its_tables[name][0], here_tables[name][0], check_exact=True)
    assert its.checks == here.checks


def without_place(launched, value):
    """Leave out where a launch had the prices from: the model's card says it."""
    return value.replace(launched.materializations["prices/data"]["origin"], "") if isinstance(value, str) else value


def assert_same_metadata(its, here, ws):
    """Compare what Dagster shows of two launches of the same pipeline."""
    for asset, metadata in here.materializations.items():
        links = {name for name, value in metadata.items() if "/get-artifact?" in str(value)}
        differing = PLACES | links | {"report"}
        differing |= {"last_rows", "table_digest"} if asset.endswith("champion_model") else set()
        shown = its.materializations[asset]
        assert {name: without_place(its, shown[name]) for name in metadata if name not in differing} == {
            name: without_place(here, value) for name, value in metadata.items() if name not in differing
        }
        assert shown["databricks_run"].startswith(ws.url)
        assert shown["databricks_run"] in its.log


def test_the_reference_is_made_here(here):
    assert here["build"][1].success, here["build"][1].failures
    assert here["search"][1].success, here["search"][1].failures
    assert here["predict"][1].success, here["predict"][1].failures


@pytest.fixture
def here(new_stack, memo, mlflow_url):
    """What comes out here: made once."""
    if not memo:
        stack = new_stack("here")
        memo["build"] = (stack, stack.launch())
        memo["search"] = (stack, stack.launch("search_model_pipeline", only="stock_price/grid_search_results"))
        memo["mlflow"] = tracked(stack, mlflow_url)
        memo["predict"] = (stack, predict(stack))
    return memo


def predict(stack):
    """Launch the steps of predict_pipeline after the prices."""
    keys = [dg.AssetKey(["stock_price", name]) for name in PREDICTIONS]
    return stack.launch("predict_pipeline", asset_selection=keys)


@pytest.fixture(scope="module")
def memo():
    return {}


# On a cluster that exists the same is sent; `test_databricks_guards.py` runs steps there. Serverless is compared below.
@pytest.mark.parametrize("kind", ["step-new", "pipes-new"])
def test_model_and_search_are_the_same_as_here(kind, here, new_stack, mlflow_url, ws):
    stack = new_stack(kind)
    build = stack.launch()
    assert build.success, build.failures
    assert_same((stack, build), here["build"], "data", "training_set", "trained_model", "champion_model")
    for table in ("data", "training_set", "trained_model"):
        assert tables(stack, table)[table][1].digest == tables(here["build"][0], table)[table][1].digest
    assert build.inputs == here["build"][1].inputs
    assert_same_metadata(build, here["build"][1], ws)

    # Another run writes a training set, of which this Dagster doesn't know: the search reads what Dagster shows.
    rival = rival_of(stack, ws)
    search = stack.launch("search_model_pipeline", only="stock_price/grid_search_results")
    assert search.success, search.failures
    assert_same((stack, search), here["search"], "grid_search_results")
    read = search.materializations["stock_price/grid_search_results"]["training_set_version"]
    assert (read, rival.table.version) == (
        build.materializations["stock_price/training_set"]["table_version"],
        read + 1,
    )
    assert tracked(stack, mlflow_url) == here["mlflow"]
    predicted = predict(stack)
    assert predicted.success, predicted.failures
    assert_same((stack, predicted), here["predict"], *PREDICTIONS)
    # Nothing that was staged is left, but for the wheel that the next run uses.
    staged = [path for path in (ws.dbfs / "staging" / stack.name).rglob("*") if path.is_file()]
    staged += list((ws.volumes / "main/mlops/data" / stack.name / "staging").rglob("*"))
    assert {path.suffix for path in staged if path.is_file()} <= {".whl"}
    assert {path.name for path in staged if path.is_dir()} <= {"wheels", "steps"}


def rival_of(stack, ws):
    """Let somebody who works on the same tables write another training set."""
    settings = stack.settings
    if not settings["store"]["root"].startswith("s3:"):
        root = str(ws.volumes / "main/mlops/data" / stack.name / "store")
        settings = {**settings, "store": {"root": root}}
    elsewhere = Deployment(home=stack.home, store=settings["store"])
    with Session(elsewhere, shipped("stock_price"), Origin("shell", "rival")) as session:
        return session.run("training_set", "ACME", {"horizon": 20})


def test_a_run_of_many_is_one_databricks_run(new_stack, ws):
    stack = new_stack("pipes-new")
    folder = ws.volumes / "main/mlops/data" / stack.name
    shutil.copy(folder / "ACME.csv", folder / "B.csv")
    shutil.copy(folder / "ACME.csv", folder / "D.csv")
    with stack.instance() as instance:
        instance.add_dynamic_partitions("prices_symbol", ["B", "C", "D"])
        symbols = instance.get_dynamic_partitions("prices_symbol")
    before = len(ws.runs())
    tags = {"dagster/asset_partition_range_start": "ACME", "dagster/asset_partition_range_end": "D"}
    made = stack.launch(tags=tags)
    assert len(ws.runs()) == before + 1
    assert not made.success
    (failure,) = made.failures.values()
    assert f"1 of {len(symbols) - symbols.index('ACME')} partitions failed" in failure
    assert "C (data): " in failure
    told = Counter((one.asset_key.path[-1], one.partition) for one in made._made)
    assert told == {
        (step, symbol): 1
        for step in ("data", "training_set", "trained_model", "champion_model")
        for symbol in ("ACME", "B", "D")
    }
    digests = {table.digest for table in (stack.store.read("training_set", one)[1] for one in ("ACME", "B", "D"))}
    assert len(digests) == 1


@pytest.mark.parametrize("kind", ["step-new", "pipes-serverless"])
def test_a_model_of_a_project_finds_what_travelled_with_it(kind, new_stack, monkeypatch):
    """Its rows come from a function of the project's; that its other steps make the same, other tests say."""
    monkeypatch.chdir(ROOT / "examples")
    stack = new_stack(kind)
    made = stack.launch("breast_cancer_build_model_pipeline", only="breast_cancer/data", partition=None, config={})
    assert made.success, made.failures
    assert made.materializations["breast_cancer/data"]["dagster/row_count"] == 569


@pytest.fixture(scope="module")
def spark_workspace(tmp_path_factory):
    with workspace(tmp_path_factory.mktemp("with spark"), engine="classic") as running:
        yield running
        assert not running.live_processes()


@pytest.mark.parametrize("kind", ["step-new", "pipes-serverless"])
def test_a_search_on_the_clusters_own_spark_is_the_same_as_here(
    kind, here, new_stack, spark_workspace, tmp_path, mlflow_url, price_file
):
    stack = new_stack(kind, spark_workspace)
    if kind.startswith("pipes"):
        # Prices and training set don't need the cluster: made here, on the disk behind the volume.
        stack.settings["store"]["root"] = f"/Volumes/main/mlops/data/{stack.name}/store"
        stack.write()
    prepare = stack_of("here", tmp_path / "prepare", spark_workspace, mlflow_url, price_file)
    root = spark_workspace.volumes / "main/mlops/data" / stack.name / "store"
    prepare.settings["store"] = stack.settings["store"] if kind.startswith("step") else {"root": str(root)}
    prepare.settings["tracking"]["experiment_name"] = f"{stack.name}-prepared"
    prepare.write()
    for asset in ("prices/data", "stock_price/training_set"):
        prepared = prepare.launch("search_model_pipeline", only=asset, config={})
        assert prepared.success, prepared.failures

    search = stack.launch("cluster_search_model_pipeline", only="stock_price/grid_search_results")
    assert search.success, search.failures
    assert search.materializations["stock_price/grid_search_results"]["engine"] == "spark"
    (its, _), (expected, _) = (
        tables(one, "grid_search_results")["grid_search_results"] for one in (stack, here["search"][0])
    )
    pd.testing.assert_frame_equal(its, expected, check_exact=True)
