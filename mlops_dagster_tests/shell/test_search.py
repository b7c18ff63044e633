"""`mlops search-model` and `mlops cache` as users run them: as processes, with their own output and exit status."""

import json
import signal
import subprocess
import sys

import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.shell.options import parse_grid
from mlops_dagster.stack.store import Store
from mlops_dagster_tests.conftest import mlflow_runs
from mlops_dagster_tests.contracts.servers import eventually

pytestmark = pytest.mark.examples

SMALL = ("--grid", "max_depth=2,4", "--grid", "n_estimators=2:6:2", "--grid", "min_samples_leaf=5")


def test_a_search_prints_the_whole_report_and_shows_in_the_next(mlops, home, price_file):
    given = ("--symbol", "ACME", "--path", str(price_file), *SMALL)
    done = mlops("search-model", *given, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["pipeline"] == "search_model_pipeline"
    found = said["symbols"]["ACME"]["grid_search_results"]
    assert found["candidates"] == 6
    assert found["work"]["trees_asked"] == 3 * 2 * (2 + 4 + 6)
    (run,) = mlflow_runs(home)
    assert (run.info.run_id, run.info.status) == (found["mlflow_run_id"], "FINISHED")
    assert run.data.tags["orchestrator_run_id"] == said["run_id"]

    (reported,) = json.loads(mlops("report", "--json").stdout)["searches"]
    assert reported["best_parameters"] == found["best_parameters"]
    assert "ACME" in mlops("report").stdout

    shown = json.loads(mlops("cache", "show", "--json").stdout)
    assert shown["bytes"] > 0
    assert str(home) in mlops("cache", "show").stdout.replace("\n", "")
    again = mlops("search-model", *given)
    assert "0 grown" in again.stdout
    assert mlops("cache", "prune", "--older-than-days", "0").returncode == 0
    assert json.loads(mlops("cache", "show", "--json").stdout)["bytes"] == 0


def test_a_plan_grows_nothing(mlops, home, price_file):
    done = mlops("search-model", "--symbol", "ACME", "--path", str(price_file), "--preset", "article", "--plan")
    assert done.returncode == 0, done.stderr
    assert "288 candidates on 3 folds: 864 fits" in done.stdout
    assert "345,600" in done.stdout
    assert mlflow_runs(home) == []
    assert Store(home / "store" / "stock_price").current("grid_search_results", "ACME") is None


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--symbol", "../x"), 2, "symbol='../x' (str)"),
        (("--grid", "max_depth="), 2, "grid.max_depth=[] (list): the list is empty"),
        (("--grid", "max_depth=0"), 2, "grid.max_depth=0 (int)"),
        (("--grid", "max_depth=deep"), 2, "grid.max_depth='deep' (str)"),
        (("--grid", "max_depth"), 2, "grid='max_depth' (str): give max_depth=80,90,100"),
        (("--grid", "max_depth=1:5"), 2, "grid='max_depth=1:5' (str)"),
        (("--grid", "{max_depth"), 2, "that is no JSON"),
        (("--grid", "max_depth=3", "--preset", "small"), 2, "preset='small' (str)"),
        (("--grid", "max_depth=3", "--grid", "max_depth=4"), 2, "max_depth was given before"),
        (("--grid", "random_state=0:99999999:1"), 2, "at most 100,000"),
        (("--folds", "1"), 2, "folds=1 (int)"),
        (("--scoring", "rmse"), 2, "scoring='rmse' (str)"),
        (("--recipe", "article"), 2, "--recipe"),
    ],
)
def test_bad_input_is_said_in_one_sentence_before_any_work(mlops, home, arguments, status, said):
    done = mlops("search-model", *(() if "--symbol" in arguments else ("--symbol", "ACME")), *arguments)
    assert done.returncode == status
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (home / "store").exists()


def test_pruning_without_saying_what_is_refused(mlops):
    done = mlops("cache", "prune")
    assert done.returncode == 2
    assert "--older-than-days" in done.stderr


def test_a_bad_master_is_refused_without_repeating_it(mlops, price_file):
    given = ("--symbol", "ACME", "--path", str(price_file), *SMALL)
    done = mlops("cluster-search-model", *given, "--master", "sc:/host/;token=secret")
    assert done.returncode == 2
    assert "spark://host:port" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_stops_a_search_cleanly(home, tmp_path, price_file):
    # Ten thousand trees a fold take long enough to be stopped in the middle.
    given = (
        "--symbol",
        "ACME",
        "--path",
        str(price_file),
        "--grid",
        "n_estimators=10000",
        "--grid",
        "min_samples_leaf=1",
    )
    command = [sys.executable, "-m", "mlops_dagster.cli", "search-model", *given]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    eventually(lambda: any(run.data.params for run in mlflow_runs(home)))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "the same command goes on from there" in errors
    assert [run.info.status for run in mlflow_runs(home)] == ["KILLED"]
    assert Store(home / "store" / "stock_price").current("grid_search_results", "ACME") is None


def test_json_and_short_forms_mean_the_same():
    short = parse_grid(["max_depth=80,90", "max_features=2,0.5", "bootstrap=true,False", "n_estimators=10:30:10"])
    grid = {"max_depth": [80, 90], "max_features": [2, 0.5], "bootstrap": [True, False]}
    long = parse_grid([json.dumps({**grid, "n_estimators": {"start": 10, "stop": 30, "step": 10}})])
    assert json.dumps(short) == json.dumps(long)
    with pytest.raises(ParameterError, match="was given before"):
        parse_grid(['{"max_depth": [3]}', "max_depth=4"])
