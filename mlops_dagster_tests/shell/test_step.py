"""`mlops step`: a pipeline's steps one by one, as Airflow's tasks call them, make what its own command makes."""

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.session import Session
from mlops_dagster.shell.running import run_steps
from mlops_dagster.spec.steps import pipelines_of
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.tracking import Origin
from mlops_dagster.steps.versions import declared_code_version
from mlops_dagster_tests.conftest import mlflow_runs
from mlops_dagster_tests.contracts.shipped import shipped

RUN = ("-s", "ACME", "--pipeline", "build_model_pipeline", "--given")
TEST = Origin("test", "run-1", None)
MODEL = shipped("stock_price")
STEPS = pipelines_of(MODEL)[0].steps
GIVEN = {"horizon": None, "max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5, "beat_baseline": False}


@pytest.mark.slow
def test_the_steps_of_a_pipeline_make_what_its_command_makes_and_dagster_shows_both(mlops, home, price_file, instance):
    options = ("--max-depth", "4", "--n-estimators", "5", "--min-samples-leaf", "5", "--no-beat-baseline")
    whole = mlops("build-model", "--symbol", "ACME", "--path", str(price_file), *options, "--json")
    assert whole.returncode == 0, whole.stderr
    expected = json.loads(whole.stdout)["symbols"]["ACME"]
    names = [step.name for step in STEPS]
    assert list(expected) == names
    origin = json.dumps({"orchestrator": "airflow", "run_id": "manual__1"})
    made, said_versions = {}, {}
    run = json.dumps({**GIVEN, "source": "files", "path": str(price_file)})
    for name in names:
        if made:  # another run writes the same table at the same time
            Session(load_deployment(), MODEL, TEST).run("training_set", "ACME", {"test_size": 0.5})
        command = (f"--origin={origin}", "step", f"stock_price/{name}", "--pipeline=build_model_pipeline")
        command += (f"--inputs={json.dumps(made)}",) if made else ()
        done = mlops(*command, "--symbol=ACME", f"--given={run}", "--json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        made |= said["outputs"]
        assert said["inputs"].items() <= made.items()
        assert (said["step"], said["run_id"]) == (name, "manual__1")
        said_versions[name] = said["data_version"][:16]
        if name == "champion_model":
            # The second model is the same as the first, so it doesn't take its place.
            assert (expected[name]["promoted"], said["promoted"]) == (True, False)
        else:
            assert said["data_version"] == expected[name]["data_version"]
            assert said["metrics"] == expected[name]["metrics"]
    tags = [run.data.tags["orchestrator"] for run in mlflow_runs(home)]
    assert sorted(tags) == ["airflow", "shell"]
    for name in names:
        asset = dg.AssetKey(["prices" if name == "data" else "stock_price", name])
        airflows, shells = (
            record.asset_materialization
            for record in instance.fetch_materializations(
                dg.AssetRecordsFilter(asset, asset_partitions=["ACME"]), limit=9
            ).records
        )
        assert "airflow, run manual__1" in airflows.description
        assert "shell, run " in shells.description
        assert airflows.metadata["table_version"].value >= shells.metadata["table_version"].value
        assert shells.tags["dagster/data_version"] == expected[name]["data_version"][:16]
    # As if Dagster had made them: nothing is called out of date, and each knows what it was made from.
    assert airflows.tags["dagster/input_data_version/stock_price/trained_model"] == said_versions["trained_model"]
    assert airflows.tags["dagster/code_version"] == declared_code_version(MODEL, "champion_model")


def test_a_dagster_that_cant_be_told_is_a_warning(mlops, home, price_file, instance):
    (database,) = (home / "dagster").rglob("index.db")
    database.write_bytes(b"not a database, but longer than the sixteen bytes of a header" * 100)
    given = json.dumps({"source": "files", "path": str(price_file)})
    done = mlops("step", "data", "--symbol", "ACME", "--given", given, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["table"]["rows"] == 400
    assert f"Dagster at {home / 'dagster'} couldn't be told" in done.stderr
    assert "Traceback" not in done.stderr


class Overtaken(Session):
    """A session beside another run, which writes other prices as soon as these are there."""

    def run(self, step, symbol, given, **how):
        report = super().run(step, symbol, given, **how)
        if step == "data":
            super().run(step, symbol, {**given, "path": str(self.deployment.home / "other.csv")})
        return report


def test_the_steps_of_one_command_read_what_it_has_made(home, price_file, price_rows):
    price_rows.head(300).to_csv(home / "other.csv", index=False)
    given = {"data": {"source": "files", "path": str(price_file)}, "training_set": {}}
    reports = run_steps(Overtaken(load_deployment(), MODEL, TEST), STEPS[:2], "ACME", given)
    assert reports["training_set"]["inputs"] == reports["data"]["outputs"]
    assert reports["training_set"]["table"]["rows"] == 380


@pytest.fixture
def examples(tmp_path):
    """Models of a project's own, beside which those that ship can be used as well."""
    for name in ("breast_cancer", "demand"):
        shutil.copytree(Path(__file__).parents[2] / "examples" / "defs" / name, tmp_path / "defs" / name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stock_price/nothing", "--symbol", "ACME"], "step='nothing' (str): there is no such step; there are data, "),
        (["stock_price/data", "--symbol", "../x"], "symbol='../x' (str)"),
        (
            ["stock_price/data", *RUN, '{"n_estimator": 5}'],
            "n_estimator=5 (int): build_model_pipeline has no such parameter",
        ),
        (
            ["stock_price/grid_search_results", *RUN, "{}"],
            "there is no such step; there are data, training_set, trained_model",
        ),
        (["stock_price/data", *RUN, '{"n_estimators": 0}'], "n_estimators=0 (int): give an integer from 1 to"),
        (
            ["stock_price/data", "-s", "ACME", "--pipeline", "build"],
            "pipeline='build' (str): there is no such pipeline; there",
        ),
        (
            ["stock_price/trained_model", "-s", "ACME", "--given", '{"depth": 4}'],
            "depth=4 (int): there is no such parameter",
        ),
        (
            ["stock_price/trained_model", "-s", "ACME", "--given", '{"max_depth": "4"}'],
            "max_depth='4' (str): give an integer",
        ),
        (["stock_price/trained_model", "-s", "ACME", "--given", '{"max_features": 2.5}'], "above 1 a whole one"),
        (["stock_price/trained_model", "-s", "ACME", "--inputs", "[4]"], "inputs='[4]' (str): give an object"),
        (["stock_price/trained_model", "-s", "ACME", "--inputs", '{"data": 3}'], "inputs.data=3 (int): give version"),
        (
            ["stock_price/trained_model", "-s", "ACME", "--inputs", '{"prices": {}}'],
            "inputs='prices' (str): no step makes such a",
        ),
        (["stock_price/trained_model", "-s", "ACME", "--given", "max_depth=4"], "that is no JSON"),
        (["stock_price/data"], "symbol=None (NoneType): say which --symbol; there are GSPC, IXIC."),
        (["data"], "model=None (NoneType): say which. Declared here: breast_cancer, demand."),
        (["nobody/data"], "model='nobody' (str): no such model is declared in "),
        (["breast_cancer/data", "-p", "x"], "partition='x' (str): breast_cancer has one model for all rows; leave it"),
        (["demand/data"], "series=None (NoneType): say which --series; there are shop_00, "),
    ],
)
def test_a_wrong_call_is_refused_before_any_work(mlops, home, examples, arguments, said):
    done = mlops("step", *arguments, "--json")
    assert done.returncode == ParameterError.exit_status
    assert said in json.loads(done.stdout)["message"]
    assert not (home / "store").exists()


def test_a_cure_names_the_model_where_a_project_has_others(mlops, examples):
    said = mlops("promote", "stock_price", "-s", "ACME").stderr
    assert "Build one: mlops build-model stock_price --symbol ACME." in " ".join(said.split())


def test_what_a_step_needs_has_to_be_there(mlops, home):
    done = mlops("step", "training_set", "--symbol", "ACME", "--json")
    assert done.returncode == 1
    there = home / "store" / "prices"  # where models share it
    assert f"there is no table 'data' of 'ACME' below {there}; " in json.loads(done.stdout)["message"]
