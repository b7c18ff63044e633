"""The assets, checks and job in Dagster, on real tables and a real MLflow database."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.loader import LoadingContextForTest
from dagster._core.utils import make_new_run_id
from mlflow import MlflowClient

from mlops_dagster.instance import prepare_instance
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import store_of
from mlops_dagster_tests.conftest import embedded_plot
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.contracts.stock import Stock

pytestmark = pytest.mark.examples

SMALL = {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5}
STEPS = ("training_set", "trained_model", "champion_model")
KEYS = {"data": dg.AssetKey(["prices", "data"]), **{step: dg.AssetKey(["stock_price", step]) for step in STEPS}}


def launch(defs, instance, symbol="ACME", forest=SMALL, split=None, prices=None, run_id=None, model="stock_price"):
    job = "build_model_pipeline" if model == "stock_price" else f"{model}_build_model_pipeline"
    return defs.resolve_job_def(job).execute_in_process(
        run_config={
            "ops": {
                "prices__data": {"config": prices or {}},
                f"{model}__training_set": {"config": split or {}},
                f"{model}__trained_model": {"config": forest},
            }
        },
        partition_key=symbol,
        instance=instance,
        raise_on_error=False,
        run_id=run_id,
    )


def failure(result):
    """The messages of the one step that failed."""
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    error, said = event.event_specific_data.error, []
    while error is not None:
        said.append(error.message)
        error = error.cause
    return event.step_key, " ".join(
        [event.event_specific_data.user_failure_data.description or "", *said]
        if event.event_specific_data.user_failure_data
        else said
    )


def test_the_job_materialises_every_asset_and_evaluates_every_check(defs, instance):
    result = launch(defs, instance)
    assert result.success
    assert {event.asset_key for event in result.get_asset_materialization_events()} == set(KEYS.values())
    evaluations = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    its_own = {key.name for checks in defs.asset_checks for key in checks.check_keys if key.asset_key in KEYS.values()}
    assert set(evaluations) == its_own
    assert evaluations["data_keep_the_contract"].passed
    assert evaluations["training_set_leaks_nothing"].passed


def test_the_metadata_are_what_people_look_at(defs, instance, home):
    launch(defs, instance)
    event = instance.get_latest_materialization_event(KEYS["trained_model"])
    metadata = event.asset_materialization.metadata
    assert metadata["root_mean_squared_error"].value > 0
    assert metadata["mlflow"].value.startswith("[open in MLflow](http://127.0.0.1:5000/#/experiments/")
    assert json.loads(json.dumps(metadata["parameters"].value))["max_depth"] == 4
    run_id = metadata["mlflow"].value.partition("?")[0].rpartition("/")[2]
    for plot in ("forecast", "errors", "permutation_importance"):
        link = f"http://127.0.0.1:5000/get-artifact?path=plots/{plot}.png&run_uuid={run_id}"
        assert metadata[plot].value == f"![{plot}: in MLflow, or below `plots`]({link})"
        image = embedded_plot(metadata, plot)
        assert image.startswith(b"\x89PNG")
        assert len(image) < 25_000  # every event carries its plots
    # People read the summary, programs the report, which has everything to the last digit.
    said = metadata["summary"].value
    assert "| root_mean_squared_error | " in said
    assert len(said) < 1000  # more isn't shown without a click
    assert "root_mean_squared_error_baseline" not in metadata  # with so wide a key the pictures are cut at 1280 pixels
    report = metadata["report"].value
    assert report["metrics"]["root_mean_squared_error"] == pytest.approx(
        metadata["root_mean_squared_error"].value, rel=1e-5
    )
    assert report["model_digest"].startswith(metadata["model_digest"].value)
    assert len(metadata["model_digest"].value) == len(metadata["table_digest"].value) == 12
    columns = [one.data["column"] for one in metadata["last_rows"].records]
    assert sorted(columns) == sorted(report["table"]["columns"])
    champion = instance.get_latest_materialization_event(KEYS["champion_model"]).asset_materialization.metadata
    assert "/#/models/mlops_dagster.stock_price.ACME/versions/1" in champion["mlflow"].value
    picture = champion["champion_history"].value
    assert f"/get-artifact?path=plots/champion_model-0/champion_history.png&run_uuid={run_id})" in picture
    files = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db").list_artifacts(run_id, "plots/champion_model-0")
    assert [file.path for file in files] == ["plots/champion_model-0/champion_history.png"]
    prices = instance.get_latest_materialization_event(KEYS["data"]).asset_materialization.metadata
    assert prices["dagster/row_count"].value == 400
    columns = prices["dagster/column_schema"].value.columns
    assert [column.name for column in columns] == ["Date", "Open", "High", "Low", "Close", "AdjClose", "Volume"]
    assert all(column.description for column in columns)


def test_the_mlflow_run_links_to_the_dagster_run_and_back(defs, instance, home):
    result = launch(defs, instance, forest={"max_depth": 3, "n_estimators": 7})
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("mlops_dagster-stock_price")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.data.params["max_depth"], run.data.params["n_estimators"]) == ("3", "7")
    assert run.info.status == "FINISHED"
    assert run.data.tags["orchestrator"] == "dagster"
    assert run.data.tags["orchestrator_run_id"] == result.run_id
    assert f"http://127.0.0.1:3000/runs/{result.run_id}" in " ".join(run.data.tags.values())
    metadata = instance.get_latest_materialization_event(KEYS["trained_model"]).asset_materialization.metadata
    assert run.info.run_id in metadata["mlflow"].value


def test_the_article_fails_the_leak_check_as_a_warning(defs, instance):
    result = launch(defs, instance, model="article")
    assert result.success
    evaluations = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    leaks = evaluations["training_set_leaks_nothing"]
    assert not leaks.passed
    assert leaks.severity == dg.AssetCheckSeverity.WARN
    assert "test" in leaks.description


def test_a_run_reads_what_it_has_made_while_another_makes_the_same(defs, instance, home):
    """Run B makes another training set between two steps of run A, whose last step is then executed again."""
    any_asset = defs.resolve_implicit_global_asset_job_def()
    rival = {"ops": {"stock_price__training_set": {"config": {"horizon": 20}}}}
    run_id = make_new_run_id()

    def between_its_steps(entry):
        event = entry.dagster_event
        if event is not None and event.is_step_success and event.step_key == "stock_price__training_set":
            its = {"instance": instance, "partition_key": "ACME", "asset_selection": [KEYS["training_set"]]}
            assert any_asset.execute_in_process(run_config=rival, **its).success

    instance.add_event_listener(run_id, between_its_steps)
    result = launch(defs, instance, run_id=run_id)
    assert result.success

    def made(name, run):
        records = instance.fetch_materializations(KEYS[name], limit=10).records
        return next(one for one in records if one.run_id == run)

    def assert_made_from_the_runs_own(run):
        ours, model = made("training_set", run_id), made("trained_model", run).asset_materialization
        assert model.metadata["training_set_version"] == ours.asset_materialization.metadata["table_version"]
        # Dagster itself records the same input, though another is newer.
        assert model.tags["dagster/input_event_pointer/stock_price/training_set"] == str(ours.storage_id)

    newest = instance.fetch_materializations(KEYS["training_set"], limit=1).records[0]
    assert newest.storage_id > made("training_set", run_id).storage_id
    assert_made_from_the_runs_own(run_id)
    again = execute_again(defs, instance, run_id, "trained_model")
    assert_made_from_the_runs_own(again)
    # A run that has made no training set reads the newest of which Dagster knows, though the store has a newer one.
    Stock(home, model=shipped("stock_price")).run("training_set", {"horizon": 2})
    alone = any_asset.execute_in_process(
        run_config={"ops": {"stock_price__trained_model": {"config": SMALL}}},
        instance=instance,
        partition_key="ACME",
        asset_selection=[KEYS["trained_model"]],
    )
    read = made("trained_model", alone.run_id).asset_materialization.metadata["training_set_version"]
    assert read == newest.asset_materialization.metadata["table_version"]


def execute_again(defs, instance, run_id, step):
    """Execute a step of a run again, as the UI does, and return the new run's id."""
    job = defs.resolve_job_def("build_model_pipeline").get_subset(asset_selection={KEYS[step]})
    run = instance.create_run_for_job(
        job,
        run_config={"ops": {f"stock_price__{step}": {"config": SMALL}}},
        tags={"dagster/partition": "ACME"},
        parent_run_id=run_id,
        root_run_id=run_id,
        asset_selection=frozenset({KEYS[step]}),
    )
    assert execute_run(InMemoryJob(job), run, instance).success
    return run.run_id


def stale(defs, instance):
    graph = defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {name: resolver.get_status(key, "ACME") for name, key in KEYS.items()}


def test_dagster_knows_what_is_stale_from_the_stores_versions(defs, instance, price_rows, price_file):
    launch(defs, instance)
    fresh = dict.fromkeys(KEYS, StaleStatus.FRESH)
    assert stale(defs, instance) == fresh

    # The same prices again are no change, so nothing after them is stale.
    any_asset = defs.resolve_implicit_global_asset_job_def()
    any_asset.execute_in_process(instance=instance, partition_key="ACME", asset_selection=[KEYS["data"]])
    assert stale(defs, instance) == fresh

    price_rows.loc[399, "Close"] *= 1.001
    price_rows.loc[399, "High"] *= 1.01
    price_rows.to_csv(price_file, index=False)
    any_asset.execute_in_process(instance=instance, partition_key="ACME", asset_selection=[KEYS["data"]])
    assert stale(defs, instance) == {**fresh, "training_set": StaleStatus.STALE}

    # What is stale passes on only with new data: Dagster asks one step at a time.
    any_asset.execute_in_process(instance=instance, partition_key="ACME", asset_selection=[KEYS["training_set"]])
    assert stale(defs, instance) == {**fresh, "trained_model": StaleStatus.STALE}


@pytest.mark.parametrize(
    ("forest", "said"),
    [
        ({"max_depth": 0}, "max_depth=0 (int): give an integer from 1 to 1000."),
        ({"max_depth": -1}, "max_depth=-1 (int)"),
        ({"max_depth": 10**9}, "max_depth=1000000000 (int)"),
        ({"n_estimators": 0}, "n_estimators=0 (int)"),
        ({"max_features": 2.5}, "max_features=2.5 (float): give a number from 0.001 to 10000, above 1 a whole one"),
    ],
)
def test_a_value_out_of_bounds_fails_the_first_step_before_any_work(defs, instance, home, forest, said):
    failed = launch(defs, instance, forest=forest, split={"horizon": 1})
    step, message = failure(failed)
    assert step == "prices__data"
    assert said in message
    (event,) = failed.get_step_failure_events()
    ((name, config),) = event.event_specific_data.user_failure_data.metadata.items()
    assert name == f"config_without_{next(iter(forest))}"
    assert yaml.safe_load(config.value) == {"ops": {"stock_price__training_set": {"config": {"horizon": 1}}}}
    assert not (home / "store").exists()


@pytest.mark.parametrize("forest", [{"max_depth": 2.5}, {"max_depth": "80"}, {"max_depth": True}, {"depth": 80}])
def test_a_value_of_the_wrong_type_is_refused_at_launch(defs, instance, forest):
    with pytest.raises(dg.DagsterInvalidConfigError, match="depth"):
        launch(defs, instance, forest=forest)


def test_an_unknown_symbol_names_the_file_that_is_missing(defs, instance):
    instance.add_dynamic_partitions("prices_symbol", ["NOPE"])
    failed = launch(defs, instance, symbol="NOPE")
    step, message = failure(failed)
    assert step == "prices__data"
    assert "NOPE.csv" in message
    # The run's page shows our sentence first, and what Dagster says of it below.
    (event,) = failed.get_step_failure_events()
    assert "NOPE.csv" in event.event_specific_data.user_failure_data.description


@pytest.mark.parametrize("symbol", ["../x", "/x", "a,b", "A" * 300])
def test_a_symbol_that_could_be_something_else_is_refused(defs, instance, home, symbol):
    instance.add_dynamic_partitions("prices_symbol", [symbol])  # the UI's dialog lets it through
    step, message = failure(launch(defs, instance, symbol=symbol))
    assert step == "prices__data"
    assert "give 1 to 32 letters" in message
    assert not (home / "store").exists()


def test_bad_rows_stop_the_run_and_leave_the_last_good_tables(defs, instance, price_rows, price_file):
    launch(defs, instance)
    before = instance.get_latest_materialization_event(KEYS["data"]).asset_materialization.metadata["table_version"]
    price_rows.loc[5, "Low"] = price_rows.loc[5, "High"] + 1
    price_rows.to_csv(price_file, index=False)
    step, message = failure(launch(defs, instance))
    assert step == "prices__data"
    assert "Low" in message
    assert "2020-01-08" in message
    after = instance.get_latest_materialization_event(KEYS["data"]).asset_materialization.metadata["table_version"]
    assert after == before


def test_where_prices_come_from_can_be_said_at_launch(defs, instance, price_rows, tmp_path):
    other = tmp_path / "other.parquet"
    price_rows.to_parquet(other)
    assert launch(defs, instance, prices={"path": str(other)}).success
    metadata = instance.get_latest_materialization_event(KEYS["data"]).asset_materialization.metadata
    assert "other.parquet" in metadata["origin"].value


def test_a_check_can_be_run_alone_and_finds_what_was_broken_since(defs, instance, home):
    launch(defs, instance)
    store = store_of(load_deployment(), shipped("stock_price"))
    frame, _ = store.read("data", "ACME")
    frame.loc[7, "High"] = 0.01
    store.write("data", "ACME", frame)
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        op_selection=["prices__data_data_keep_the_contract"],
        instance=instance,
        partition_key="ACME",
        raise_on_error=False,
    )
    evaluations = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert not evaluations["data_keep_the_contract"].passed
    assert "High" in evaluations["data_keep_the_contract"].description


def test_a_fresh_instance_has_the_partitions_that_models_list(instance):
    assert set(instance.get_dynamic_partitions("prices_symbol")) == {"ACME", "GSPC", "IXIC"}


@pytest.mark.slow
def test_dagsters_own_command_lines_accept_the_project(home, tmp_path):
    prepare_instance(load_deployment())
    root = Path(__file__).parents[1]
    for command in (
        ["-m", "dagster", "definitions", "validate"],
        ["-m", "dagster_dg_cli.cli.entrypoint", "check", "defs"],
        ["-m", "dagster_dg_cli.cli.entrypoint", "list", "defs"],
    ):
        done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "trained_model" in done.stdout


@pytest.mark.slow
def test_dagster_runs_started_at_once(home, price_file, monkeypatch):
    prepare_instance(load_deployment())
    monkeypatch.setenv("MLOPS_DATA__PRICES__PATH", str(price_file.parent / "{symbol}.csv"))
    symbols = ["S0", "S1"]
    for symbol in symbols:
        (price_file.parent / f"{symbol}.csv").write_bytes(price_file.read_bytes())
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        instance.add_dynamic_partitions("prices_symbol", symbols)
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "mlops_dagster.definitions"]
    command += ["-j", "build_model_pipeline", "--tags"]
    processes = [
        subprocess.Popen(
            [*command, json.dumps({"dagster/partition": symbol})],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for symbol in symbols
    ]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    assert not any("database is locked" in text for text in said)
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("mlops_dagster-stock_price").experiment_id])
    assert sorted(run.data.tags["symbol"] for run in runs) == symbols
    assert {run.info.status for run in runs} == {"FINISHED"}
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        assert len(instance.get_runs()) == 2
