"""The steps, called as plain functions, on real tables and a real MLflow database."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.violations import ContractError
from mlops_dagster.stack.file_finding import SourceError
from mlops_dagster.stack.store import StoreError, TableNotFound
from mlops_dagster.stack.tracking import MlflowTracker, TrackingError
from mlops_dagster.steps.search import plan_search
from mlops_dagster_tests.contracts.stock import SMALL, Stock

MADE = ("data", "training_set", "trained_model")


@pytest.fixture
def stock(home, price_file):
    """Data and training set of ACME."""
    stock = Stock(home, price_file)
    stock.prepare()
    return stock


def contents(stock):
    return {table: there.version for table in MADE if (there := stock.current(table)) is not None}


def test_prices_are_kept_as_they_are_and_the_same_again_are_no_new_version(stock, price_rows):
    kept = stock.read("data")
    assert list(kept["Date"].dt.strftime("%Y-%m-%d")) == list(price_rows["Date"])
    assert list(kept["Adj Close"]) == pytest.approx(list(price_rows["Adj Close"]), rel=1e-15)
    again = stock.run("data")
    assert (again.data_version, again.table.version) == (stock.current("data").digest, 0)


def test_a_changed_price_is_a_new_version_of_everything_after_it(stock, price_rows, price_file):
    before = {name: stock.current(name).digest for name in ("data", "training_set")}
    price_rows.loc[200, "Volume"] += 1
    price_rows.to_csv(price_file, index=False)
    assert stock.run("data").data_version != before["data"]
    assert stock.run("training_set").data_version != before["training_set"]


def test_a_trained_model_leaves_its_parameters_metrics_plots_and_model_in_mlflow(stock):
    import mlflow

    report = stock.run("trained_model", SMALL)
    client = MlflowClient(stock.tracker.tracking_uri)
    run = client.get_run(report.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert {name: run.data.params[name] for name in SMALL} == {name: str(value) for name, value in SMALL.items()}
    assert run.data.metrics == pytest.approx(report.metrics)
    assert run.data.tags["symbol"] == "ACME"
    assert run.data.tags["data_version"] == stock.current("training_set").digest
    assert (run.data.tags["orchestrator"], run.data.tags["orchestrator_run_id"]) == ("test", "run-1")
    assert {"code_version", "git_commit"} <= set(run.data.tags)
    plots = {file.path for file in client.list_artifacts(report.mlflow_run_id, "plots")}
    assert plots == {f"plots/{name}.png" for name in report.plots} != set()
    said = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert said["metrics"] == report.metrics
    assert said["table"]["rows"] == report.table.rows

    # The model that is there is the one whose predictions the table has.
    kept, data = stock.read("trained_model"), stock.read("training_set")
    test_rows = data[data["split"] == "test"].sort_values("position")
    mlflow.set_tracking_uri(stock.tracker.tracking_uri)
    model = mlflow.sklearn.load_model(report.model_uri)
    assert (model.max_depth, model.n_estimators, len(model.estimators_)) == (4, 5, 5)
    returns = model.predict(test_rows[list(model.feature_names_in_)])
    assert list(kept["prediction"]) == pytest.approx(list(test_rows["current"] * (1 + returns)), rel=1e-12)
    assert json.loads(stock.current("trained_model").metadata["metrics"]) == pytest.approx(report.metrics)

    again = stock.run("trained_model", SMALL)
    assert (again.data_version, again.metrics) == (report.data_version, report.metrics)
    assert again.mlflow_run_id != report.mlflow_run_id


def test_a_run_keeps_to_what_it_has_made_while_another_writes_the_same_tables(stock, price_rows, tmp_path):
    """Run A, with run B between each two of its steps: B has other prices and another horizon."""
    files = {"A": tmp_path / "A.csv", "B": tmp_path / "B.csv"}
    price_rows.to_csv(files["A"], index=False)
    price_rows.head(300).to_csv(files["B"], index=False)
    splits = {"A": {}, "B": {"horizon": 20}}
    forest = {"max_depth": 2, "n_estimators": 2, "min_samples_leaf": 50}
    grid = {"grid": {"max_depth": [2], "n_estimators": [2]}, "folds": 2}
    made = {"A": {}, "B": {}}
    said = {}

    def run(who, step, given):
        said[who, step] = report = stock.run(step, given, inputs=made[who])
        made[who] |= report.outputs
        assert {name: made[who].get(name, its) for name, its in report.inputs.items()} == report.inputs
        return report

    for who in made:
        run(who, "data", {"path": str(files[who])})
    for who in made:
        run(who, "training_set", splits[who])
    for who in made:
        run(who, "grid_search_results", grid)
        run(who, "trained_model", forest)
    run("A", "champion_model", {"beat_baseline": False})
    assert made["A"].keys() == made["B"].keys() | {"champion_model"}
    assert all(made["A"][table] != its for table, its in made["B"].items())
    model = said["A", "trained_model"]
    assert said["A", "grid_search_results"].facts["horizon"] == 1
    assert said["A", "champion_model"].facts["model_digest"] == model.facts["model_digest"]
    assert said["A", "champion_model"].inputs == {name: made["A"][name] for name in said["A", "champion_model"].inputs}
    # What is written down says the same.
    training_set = made["A"]["training_set"]
    tags = MlflowClient(stock.tracker.tracking_uri).get_run(model.mlflow_run_id).data.tags
    assert (tags["data_version"], tags["training_set_version"]) == (
        training_set["digest"],
        str(training_set["version"]),
    )
    assert model.table.metadata["training_set_digest"] == training_set["digest"]
    assert said["A", "training_set"].table.metadata["data_digest"] == made["A"]["data"]["digest"]

    # Prices of B come between the predictions and how good they were.
    run("A", "predictions", {})
    stock.run("data", {"path": str(files["B"])})
    assert run("A", "prediction_quality", {}).inputs["data"] == made["A"]["data"]


def test_a_step_that_is_handed_nothing_says_what_it_took(stock):
    table = stock.current("data")
    assert stock.run("training_set").inputs == {"data": {"version": table.version, "digest": table.digest}}


def test_a_version_that_was_given_away_again_is_refused(stock, price_rows, price_file):
    made = stock.run("training_set").inputs
    shutil.rmtree(Path(stock.current("data").uri).parent)
    price_rows.head(300).to_csv(price_file, index=False)
    assert stock.run("data").table.version == made["data"]["version"]
    with pytest.raises(TableNotFound, match=r"version 0 is [0-9a-f]{12} and not [0-9a-f]{12}, which this run"):
        stock.run("training_set", inputs=made)
    with pytest.raises(TableNotFound, match=r"has no version 7, which this run is to read: .* Run the steps again"):
        stock.run("training_set", inputs={"data": {**made["data"], "version": 7}})


@pytest.mark.parametrize(
    ("step", "given", "error"),
    [
        ("data", {"source": "ftp"}, ParameterError),
        ("data", {"path": None}, SourceError),
        ("data", {"path": "no.csv"}, SourceError),
        ("training_set", {"recipe": "blog"}, ParameterError),
        ("training_set", {"horizon": 0}, ParameterError),
        ("trained_model", {"max_depth": 0}, ParameterError),
        ("trained_model", {"depth": 3}, ParameterError),
        ("trained_model", {}, TableNotFound),
        ("nonsense", {}, ParameterError),
    ],
)
def test_bad_input_is_refused_and_the_tables_stay_as_they_were(stock, step, given, error):
    before = contents(stock)
    if error is TableNotFound:
        stock.symbol = "OTHER"
    with pytest.raises(error):
        stock.run(step, given)
    stock.symbol = "ACME"
    assert contents(stock) == before


def test_rows_that_break_the_contract_leave_the_last_good_table(stock, price_rows, price_file):
    before = contents(stock)
    price_rows.loc[3, "Close"] = -1.0
    price_rows.to_csv(price_file, index=False)
    with pytest.raises(ContractError, match=r"(?s)Close='-1.*2020-01-06"):
        stock.run("data")
    assert contents(stock) == before


def test_an_mlflow_that_is_down_costs_no_training(stock, home):
    # These rows would make the training fail, so that whichever comes first shows.
    frame, table = stock.store.read("training_set", "ACME")
    frame["return_1d"] = float("inf")
    stock.store.write("training_set", "ACME", frame, metadata=table.metadata)
    down = MlflowTracker("steps", "http://127.0.0.1:9", state_dir=home / "open_runs")
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9"):
        stock.call("trained_model", SMALL, tracker=down)


def test_a_training_whose_table_cannot_be_written_ends_its_mlflow_run_failed(stock):
    (Path(stock.store.root) / "trained_model").write_text("a file where the table should be")
    with pytest.raises(StoreError):
        stock.run("trained_model", SMALL)
    client, experiment = stock.tracker.connect()
    assert [run.info.status for run in client.search_runs([experiment])] == ["FAILED"]


# ------------------------------------------------------------------------------------------------------------ search

GRID = {"grid": {"max_depth": [2, 4], "n_estimators": [2, 4, 6], "max_features": [2, 0.5]}}


def test_a_search_leaves_its_candidates_as_a_table_and_what_it_did_in_mlflow(stock):
    told = []
    report = stock.run("grid_search_results", GRID, progress=told.append)
    frame, table = stock.store.read("grid_search_results", "ACME")
    assert len(frame) == report.facts["candidates"] == 12
    best = frame.loc[frame["rank_test_score"].idxmin()]
    assert (
        json.loads(best["params"]) == report.facts["best_parameters"] == json.loads(table.metadata["best_parameters"])
    )
    assert float(table.metadata["best_score"]) == best["mean_test_score"] == report.metrics["best_score"]
    assert table.metadata["training_set_digest"] == stock.current("training_set").digest
    assert table.metadata["mlflow_run_id"] == report.mlflow_run_id
    json.dumps(report.as_dict(), allow_nan=False)
    assert told[-1].units_done == told[-1].units

    client = MlflowClient(stock.tracker.tracking_uri)
    run = client.get_run(report.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["grid_max_features"] == "2, 0.5"
    assert run.data.params["best_max_depth"] == str(report.facts["best_parameters"]["max_depth"])
    assert run.data.metrics["best_score"] == report.metrics["best_score"]
    assert run.data.metrics["work_trees_asked"] == 3 * 4 * (2 + 4 + 6)
    assert len(client.get_metric_history(run.info.run_id, "mean_test_score")) == 12
    by_trees = client.get_metric_history(run.info.run_id, "best_score_by_n_estimators")
    assert sorted(metric.step for metric in by_trees) == [2, 4, 6]
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"candidates.json", "grid.json", "work.json", "plots"} <= artifacts

    # The session has kept what was grown; the times are another time's, and don't count as data.
    again = stock.run("grid_search_results", GRID)
    assert again.facts["work"]["trees_grown"] == 0
    assert again.data_version == report.data_version
    assert again.table.digest != report.table.digest
    assert stock.run("grid_search_results", {**GRID, "folds": 4}).data_version != report.data_version


@pytest.mark.parametrize(
    "given", [{"grid": {"max_depth": []}}, {"preset": "huge"}, {"folds": 0}, {"grid": {"max_features": [-1]}}]
)
def test_a_bad_search_is_refused_before_anything_is_begun(stock, given):
    with pytest.raises(ParameterError):
        stock.run("grid_search_results", given)
    client, experiment = stock.tracker.connect()
    assert client.search_runs([experiment]) == []
    assert stock.current("grid_search_results") is None


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("lost"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_search_that_fails_leaves_the_last_good_table(stock, error, status):
    class Broken:
        """An engine that fails, as a cluster does, or is interrupted, as by Ctrl-C."""

        slots = 2
        cuts_groups = False

        def run(self, units, data, receive):
            raise error

    before = stock.run("grid_search_results", GRID).table.version
    with pytest.raises(type(error)):
        stock.call("grid_search_results", {**GRID, "candidates": "children"}, engine=Broken())
    assert stock.current("grid_search_results").version == before
    client, experiment = stock.tracker.connect()
    assert sorted(run.info.status for run in client.search_runs([experiment])) == sorted(["FINISHED", status])


def test_a_plan_says_what_would_be_done_and_does_it_not(stock):
    plan = plan_search(stock.model, "ACME", GRID, store=stock.store)
    assert plan.as_dict()["candidates"] == 12
    assert plan.as_dict()["trees_asked"] == 144
    assert "12 candidates on 3 folds" in str(plan)
    assert stock.current("grid_search_results") is None
