"""`mlops step`: a pipeline's steps one by one, as Airflow's tasks call them, make what its own command makes."""

import json

import pytest

from mlops_dagster import pipelines
from mlops_dagster_tests.conftest import mlflow_runs

GIVEN = {
    "prices": {},
    "training_set": {"recipe": "honest", "horizon": None},
    "trained_model": {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5},
    "champion_model": {"beat_persistence": False},
}


@pytest.mark.slow
def test_the_steps_of_a_pipeline_make_what_its_command_makes(mlops, home, price_file):
    options = ("--max-depth", "4", "--n-estimators", "5", "--min-samples-leaf", "5", "--no-beat-persistence")
    whole = mlops("build-model", "--symbol", "ACME", "--path", str(price_file), *options, "--json")
    assert whole.returncode == 0, whole.stderr
    expected = json.loads(whole.stdout)["symbols"]["ACME"]
    assert list(expected) == list(GIVEN)
    origin = json.dumps({"orchestrator": "airflow", "run_id": "manual__1"})
    for name, given in GIVEN.items():
        more = {"path": str(price_file), "source": "files"} if name == "prices" else {}
        command = ("step", name, "--symbol=ACME", f"--given={json.dumps({**given, **more})}", "--json")
        done = mlops(f"--origin={origin}", *command)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["step"], said["run_id"]) == (name, "manual__1")
        if name == "champion_model":
            # The second model is the same as the first, so it doesn't take its place.
            assert (expected[name]["promoted"], said["promoted"]) == (True, False)
        else:
            assert said["data_version"] == expected[name]["data_version"]
            assert said["metrics"] == expected[name]["metrics"]
    tags = [run.data.tags["orchestrator"] for run in mlflow_runs(home)]
    assert sorted(tags) == ["airflow", "shell"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing", "--symbol", "ACME"], "step='nothing' (str): there is no such step; there are prices, "),
        (["prices", "--symbol", "../x"], "symbol='../x' (str)"),
        (["trained_model", "-s", "ACME", "--given", '{"depth": 4}'], "depth=4 (int): there is no such parameter"),
        (["trained_model", "-s", "ACME", "--given", '{"max_depth": "4"}'], "max_depth='4' (str): give an integer"),
        (["trained_model", "-s", "ACME", "--given", '{"max_features": 2.5}'], "above 1 a whole one"),
        (["trained_model", "-s", "ACME", "--given", "[4]"], "given='[4]' (str): give an object"),
        (["trained_model", "-s", "ACME", "--given", "max_depth=4"], "that is no JSON"),
    ],
)
def test_a_wrong_call_is_refused_before_any_work(mlops, home, arguments, said):
    done = mlops("step", *arguments, "--json")
    assert done.returncode == pipelines.ParameterError.exit_status
    assert said in json.loads(done.stdout)["message"]
    assert not (home / "store").exists()


def test_what_a_step_needs_has_to_be_there(mlops, home):
    done = mlops("step", "training_set", "--symbol", "ACME", "--json")
    assert done.returncode == 1
    assert "prices" in json.loads(done.stdout)["message"]
