"""`mlops parity` says that two stacks made the same, or in words what differs; the stacks are real, one in Dagster."""

import json
import shutil

import dagster as dg
import pandas as pd
import pytest
import yaml

from mlops_dagster.definitions import definitions_of
from mlops_dagster.instance import prepare_instance
from mlops_dagster.modeling.differences import frame_differences, list_differences, value_differences
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import store_of
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = [pytest.mark.examples, pytest.mark.xdist_group("parity")]

FOREST = {"n_estimators": 5, "max_depth": 4}
SEARCH = ["--grid", "max_depth=2,3", "--grid", "n_estimators=3,5"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder in which both sides live."""
    return tmp_path_factory.mktemp("parity")


@pytest.fixture
def stack(one, no_settings, empty_mlflow, price_rows):
    """Make a side: a deployment with a home of its own, and the same prices."""
    price_rows.to_csv(one / "ACME.csv", index=False)

    def make(name):
        home = one / name
        if not home.exists():
            (home / "mlflow").mkdir(parents=True)
            shutil.copy(empty_mlflow, home / "mlflow" / "mlflow.db")
        said = {"home": str(home), "data": {"prices": {"source": "files", "path": str(one / "{symbol}.csv")}}}
        file = one / f"{name}.yaml"
        file.write_text(yaml.safe_dump(said))
        return str(file)

    return make


@pytest.fixture
def shell(stack, mlops, monkeypatch):
    monkeypatch.delenv("MLOPS_HOME")  # it would be the home of both sides
    monkeypatch.delenv("DAGSTER_HOME")

    def run(*arguments):
        done = mlops(*arguments)
        assert done.returncode in (0, 1, 2), done.stderr
        return done

    return run


@pytest.fixture
def sides(stack, shell, one):
    """A was made by the shell, B by Dagster."""
    a, b = stack("shell"), stack("dagster")
    if not (one / "made").exists():
        forest = [f"--{name.replace('_', '-')}={value}" for name, value in FOREST.items()]
        assert shell("build-model", "--symbol", "ACME", *forest, "--deployment", a).returncode == 0
        assert shell("search-model", "--symbol", "ACME", *SEARCH, "--deployment", a).returncode == 0
        _in_dagster(b)
        (one / "made").touch()
    return a, b


def _in_dagster(file):
    deployment = load_deployment(file)
    defs = definitions_of(deployment)
    home = prepare_instance(deployment)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("prices_symbol", ["ACME"])
        grid = {"max_depth": [2, 3], "n_estimators": [3, 5]}
        for job, ops in (
            ("build_model_pipeline", {"stock_price__trained_model": {"config": FOREST}}),
            ("search_model_pipeline", {"stock_price__grid_search_results": {"config": {"grid": grid}}}),
        ):
            found = defs.resolve_job_def(job)
            run = found.execute_in_process(run_config={"ops": ops}, partition_key="ACME", instance=instance)
            assert run.success


@pytest.mark.slow
def test_the_shell_and_dagster_make_the_same(sides, shell):
    done = shell("parity", *sides)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ACME  table champion_model: the same (1 row)" in done.stdout
    assert "MLflow run of trained_model: the same" in done.stdout
    assert "table grid_search_results: the same (4 rows)" in done.stdout
    assert done.stdout.endswith("Everything that was compared is the same, to the last bit.\n")


@pytest.mark.slow
def test_what_differs_is_said_in_words(sides, stack, shell, one):
    if not (one / "other").exists():
        shutil.copytree(one / "shell", one / "other")
    other = stack("other")
    built = shell("build-model", "--symbol=ACME", "--n-estimators=6", "--max-depth=4", "--deployment", other, "--json")
    run = json.loads(built.stdout)["run_id"]

    done = shell("parity", sides[0], other, "--symbol", "ACME", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["same"]) == (1, False)
    by_what = {one["what"]: one["differences"] for one in said["symbols"]["ACME"]}
    assert by_what["table data"] == by_what["table training_set"] == by_what["table grid_search_results"] == []
    assert "parameters.n_estimators is 5 in A and 6 in B." in by_what["table trained_model"]
    assert any(text.startswith("prediction differs in ") for text in by_what["table trained_model"])
    assert "param n_estimators is 5 in A and 6 in B." in by_what["MLflow run of trained_model"]

    # The run before, in the same tables, is still what Dagster made.
    (before,) = set(_champions(other)["run_id"]) - {run}
    done = shell("parity", f"{other}@{before}", sides[1], "--json")
    said = json.loads(done.stdout)
    assert {one["what"]: one["differences"] for one in said["symbols"]["ACME"]}["table trained_model"] == []
    # MLflow's own id of it names the same run, and the same decision about the champion.
    history = _store(other).history("trained_model", "ACME")
    done = shell("parity", f"{other}@{before}", f"{other}@{history[0].metadata['mlflow_run_id']}", "--symbol", "ACME")
    assert done.returncode == 0, done.stdout
    assert "table champion_model: the same (1 row)" in done.stdout
    done = shell("parity", f"{other}@{before}", f"{other}@{run}")
    assert done.returncode == 1
    assert "model_digest" in done.stdout


def _store(file):
    return store_of(load_deployment(file), shipped("stock_price"))


def _champions(file):
    return _store(file).read("champion_model", "ACME")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{a}", "{a}"), "both sides are the same tables"),
        (("{a}", "{b}", "--symbol", "../x"), "symbol='../x' (str)"),
        (("{a}@nothing", "{b}", "--symbol", "ACME"), "run='nothing' (str): it has left nothing of ACME"),
        (("{a}", "no/such.yaml"), "there is no such file"),
        (("{empty}", "{a}", "--symbol", "NONE"), "neither side has anything of NONE"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(sides, stack, shell, arguments, said):
    names = {"a": sides[0], "b": sides[1], "empty": stack("empty")}
    done = shell("parity", *(argument.format(**names) for argument in arguments))
    assert done.returncode == 2, done.stdout
    assert said in done.stderr


def test_differences_of_tables():
    one = pd.DataFrame({"Date": pd.to_datetime(["2020-01-01", "2020-01-02"]), "x": [1.0, None], "t": ["a", None]})
    assert frame_differences(one, one.copy()) == []
    longer = pd.concat([one, one.tail(1).assign(Date=pd.Timestamp("2020-01-03"))], ignore_index=True)
    assert frame_differences(one, longer) == ["1 row is in B only, first Date=2020-01-03."]
    assert frame_differences(one, one.drop(columns="t")) == ["'t' is a column in A only."]
    assert frame_differences(one, one.assign(x=[1, 2])) == ["x is float64 in A and int64 in B."]
    assert frame_differences(one, one.assign(t=["a", "b"])) == [
        "t differs in 1 of 2 rows, first at Date=2020-01-02: None and b."
    ]
    assert frame_differences(one[["x"]], longer[["x"]]) == ["A has 2 rows, B has 3."]


def test_differences_of_values():
    nan = float("nan")
    assert value_differences({"a": nan, "b": 0.1 + 0.2}, {"a": nan, "b": 0.3}) == [
        "b is 0.30000000000000004 in A and 0.3 in B (relative difference 1.9e-16)."
    ]
    assert list_differences("artifact", ["a", "b"], ["b"]) == ["1 artifact is in A only: a."]
