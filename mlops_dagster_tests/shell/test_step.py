"""`mlops step`: a pipeline's steps one by one, as Airflow's tasks call them, make what its own command makes."""

import json
from functools import partial

import dagster as dg
import pytest

from mlops_dagster import steps
from mlops_dagster.errors import ParameterError
from mlops_dagster.shell.output import run_steps
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import Origin
from mlops_dagster_tests.conftest import mlflow_runs

TEST = Origin("test", "run-1", None)
GIVEN = {
    "prices": {},
    "training_set": {"recipe": "honest", "horizon": None},
    "trained_model": {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5},
    "champion_model": {"beat_persistence": False},
}


@pytest.mark.slow
def test_the_steps_of_a_pipeline_make_what_its_command_makes_and_dagster_shows_both(mlops, home, price_file, instance):
    options = ("--max-depth", "4", "--n-estimators", "5", "--min-samples-leaf", "5", "--no-beat-persistence")
    whole = mlops("build-model", "--symbol", "ACME", "--path", str(price_file), *options, "--json")
    assert whole.returncode == 0, whole.stderr
    expected = json.loads(whole.stdout)["symbols"]["ACME"]
    assert list(expected) == list(GIVEN)
    origin = json.dumps({"orchestrator": "airflow", "run_id": "manual__1"})
    made, said_versions = {}, {}
    for name, given in GIVEN.items():
        if made:  # another run writes the same table at the same time
            steps.training_set("ACME", {"recipe": "article"}, store=Store(home / "store"))
        more = {"path": str(price_file), "source": "files"} if name == "prices" else {}
        command = ("step", name, "--symbol=ACME", f"--given={json.dumps({**given, **more})}", "--json")
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
    for name in GIVEN:
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


def test_the_steps_of_one_command_read_what_it_has_made(home, price_file, tmp_path, price_rows):
    store, other = Store(home / "store"), tmp_path / "other.csv"
    price_rows.head(300).to_csv(other, index=False)

    def prices():
        report = steps.prices("ACME", {"source": "files", "path": str(price_file)}, store=store)
        steps.prices("ACME", {"source": "files", "path": str(other)}, store=store)
        return report

    calls = {"prices": prices, "training_set": partial(steps.training_set, "ACME", {}, store=store)}
    reports = run_steps("ACME", calls, load_deployment(), TEST)
    assert reports["training_set"]["inputs"] == reports["prices"]["outputs"]
    assert reports["training_set"]["table"]["rows"] == 380


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing", "--symbol", "ACME"], "step='nothing' (str): there is no such step; there are prices, "),
        (["prices", "--symbol", "../x"], "symbol='../x' (str)"),
        (["trained_model", "-s", "ACME", "--given", '{"depth": 4}'], "depth=4 (int): there is no such parameter"),
        (["trained_model", "-s", "ACME", "--given", '{"max_depth": "4"}'], "max_depth='4' (str): give an integer"),
        (["trained_model", "-s", "ACME", "--given", '{"max_features": 2.5}'], "above 1 a whole one"),
        (["trained_model", "-s", "ACME", "--inputs", "[4]"], "inputs='[4]' (str): give an object"),
        (["trained_model", "-s", "ACME", "--inputs", '{"prices": 3}'], "inputs.prices=3 (int): give version"),
        (["trained_model", "-s", "ACME", "--given", "max_depth=4"], "that is no JSON"),
    ],
)
def test_a_wrong_call_is_refused_before_any_work(mlops, home, arguments, said):
    done = mlops("step", *arguments, "--json")
    assert done.returncode == ParameterError.exit_status
    assert said in json.loads(done.stdout)["message"]
    assert not (home / "store").exists()


def test_what_a_step_needs_has_to_be_there(mlops, home):
    done = mlops("step", "training_set", "--symbol", "ACME", "--json")
    assert done.returncode == 1
    assert "prices" in json.loads(done.stdout)["message"]
