"""`mlops step`: a pipeline's steps one by one, as Airflow's tasks call them, make what its own command makes."""

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest

from mlops_dagster import pipelines, steps
from mlops_dagster.errors import ParameterError
from mlops_dagster.session import Session
from mlops_dagster.shell.running import run_steps
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import Origin
from mlops_dagster_tests.conftest import mlflow_runs

RUN = ("-s", "ACME", "--pipeline", "build_model_pipeline", "--given")
OF_MODEL = ("--pipeline", "breast_cancer_build_model_pipeline", "--given")
TEST = Origin("test", "run-1", None)
STEPS = [step.name for step in pipelines.BUILD_MODEL.steps]
GIVEN = {"horizon": None, "max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5, "beat_persistence": False}


@pytest.mark.slow
def test_the_steps_of_a_pipeline_make_what_its_command_makes_and_dagster_shows_both(mlops, home, price_file, instance):
    options = ("--max-depth", "4", "--n-estimators", "5", "--min-samples-leaf", "5", "--no-beat-persistence")
    whole = mlops("build-model", "--symbol", "ACME", "--path", str(price_file), *options, "--json")
    assert whole.returncode == 0, whole.stderr
    expected = json.loads(whole.stdout)["symbols"]["ACME"]
    assert list(expected) == STEPS
    origin = json.dumps({"orchestrator": "airflow", "run_id": "manual__1"})
    made, said_versions = {}, {}
    run = json.dumps({**GIVEN, "source": "files", "path": str(price_file)})
    for name in STEPS:
        if made:  # another run writes the same table at the same time
            steps.training_set("ACME", {"recipe": "article"}, store=Store(home / "store"))
        command = ("step", name, "--pipeline=build_model_pipeline", "--symbol=ACME", f"--given={run}", "--json")
        command += (f"--inputs={json.dumps(made)}",) if made else ()
        done = mlops(f"--origin={origin}", *command)
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
    for name in STEPS:
        airflows, shells = (
            record.asset_materialization
            for record in instance.fetch_materializations(
                dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=["ACME"]), limit=9
            ).records
        )
        assert "airflow, run manual__1" in airflows.description
        assert "shell, run " in shells.description
        assert airflows.metadata["table_version"].value >= shells.metadata["table_version"].value
        assert shells.tags["dagster/data_version"] == expected[name]["data_version"][:16]
    # As if Dagster had made them: nothing is called out of date, and each knows what it was made from.
    assert airflows.tags["dagster/input_data_version/trained_model"] == said_versions["trained_model"]
    assert airflows.tags["dagster/code_version"] == steps.step_code_version("champion_model")


def test_a_dagster_that_cant_be_told_is_a_warning(mlops, home, price_file, instance):
    (database,) = (home / "dagster").rglob("index.db")
    database.write_bytes(b"not a database, but longer than the sixteen bytes of a header" * 100)
    given = json.dumps({"source": "files", "path": str(price_file)})
    done = mlops("step", "prices", "--symbol", "ACME", "--given", given, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["table"]["rows"] == 400
    assert f"Dagster at {home / 'dagster'} couldn't be told" in done.stderr
    assert "Traceback" not in done.stderr


class Overtaken(Session):
    """A session beside another run, which writes other prices as soon as these are there."""

    def run(self, step, symbol, given, **how):
        report = super().run(step, symbol, given, **how)
        if step == "prices":
            super().run(step, symbol, {**given, "path": str(self.deployment.home / "other.csv")})
        return report


def test_the_steps_of_one_command_read_what_it_has_made(home, price_file, price_rows):
    price_rows.head(300).to_csv(home / "other.csv", index=False)
    given = {"prices": {"source": "files", "path": str(price_file)}, "training_set": {}}
    steps = (pipelines.PRICES, pipelines.TRAINING_SET)
    reports = run_steps(Overtaken(load_deployment(), TEST), steps, "ACME", given)
    assert reports["training_set"]["inputs"] == reports["prices"]["outputs"]
    assert reports["training_set"]["table"]["rows"] == 380


@pytest.fixture
def examples(tmp_path):
    """The models that ship, where the command is run."""
    shutil.copytree(Path(__file__).parents[2] / "examples" / "defs", tmp_path / "defs")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing", "--symbol", "ACME"], "step='nothing' (str): there is no such step; there are prices, "),
        (["prices", "--symbol", "../x"], "symbol='../x' (str)"),
        (["prices", *RUN, '{"n_estimator": 5}'], "n_estimator=5 (int): build_model_pipeline has no such parameter"),
        (["grid_search_results", *RUN, "{}"], "there is no such step; there are prices, training_set, trained_model"),
        (["prices", "-s", "ACME", "--pipeline", "build"], "pipeline='build' (str): there is no such pipeline; there"),
        (["trained_model", "-s", "ACME", "--given", '{"depth": 4}'], "depth=4 (int): there is no such parameter"),
        (["trained_model", "-s", "ACME", "--given", '{"max_depth": "4"}'], "max_depth='4' (str): give an integer"),
        (["trained_model", "-s", "ACME", "--given", '{"max_features": 2.5}'], "above 1 a whole one"),
        (["trained_model", "-s", "ACME", "--inputs", "[4]"], "inputs='[4]' (str): give an object"),
        (["trained_model", "-s", "ACME", "--inputs", '{"prices": 3}'], "inputs.prices=3 (int): give version"),
        (["trained_model", "-s", "ACME", "--given", "max_depth=4"], "that is no JSON"),
        (["prices"], "symbol=None (NoneType): give 1 to 32"),
        (["nobody/data"], "model='nobody' (str): no such model is declared in "),
        (["breast_cancer/prices"], "step='prices' (str): there is no such step; there are data, training_set, "),
        (["breast_cancer/data", "-p", "x"], "partition='x' (str): breast_cancer has one model for all rows; leave it"),
        (["demand/data"], "partition=None (NoneType): say which --partition; there are shop_00, "),
        (
            ["breast_cancer/data", *OF_MODEL, '{"horizon": 5}'],
            "horizon=5 (int): breast_cancer_build_model_pipeline has no",
        ),
        (["breast_cancer/data", *OF_MODEL, '{"n_estimators": 0}'], "n_estimators=0 (int): give an integer from 1 to"),
        (["breast_cancer/data", "--inputs", '{"prices": {}}'], "inputs='prices' (str): no step makes such a table"),
    ],
)
def test_a_wrong_call_is_refused_before_any_work(mlops, home, examples, arguments, said):
    done = mlops("step", *arguments, "--json")
    assert done.returncode == ParameterError.exit_status
    assert said in json.loads(done.stdout)["message"]
    assert not (home / "store").exists()


def test_what_a_step_needs_has_to_be_there(mlops, home):
    done = mlops("step", "training_set", "--symbol", "ACME", "--json")
    assert done.returncode == 1
    assert "prices" in json.loads(done.stdout)["message"]
