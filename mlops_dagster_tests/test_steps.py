"""The steps, called as plain functions, on real tables and a real MLflow database."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlops_dagster import steps
from mlops_dagster.errors import ParameterError
from mlops_dagster.ml.prices import PriceDataError
from mlops_dagster.stack.sources import SourceError
from mlops_dagster.stack.store import Store, StoreError, TableNotFound
from mlops_dagster.stack.tracking import MlflowTracker, Origin, TrackingError

SMALL = {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5}
TEST = Origin("test", "run-1", None)


@pytest.fixture
def store(home):
    return Store(home / "store")


@pytest.fixture
def tracker(home):
    return MlflowTracker("steps", f"sqlite:///{home}/mlflow/mlflow.db", state_dir=home / "open_runs")


@pytest.fixture
def prepared(store, price_file):
    """A store that holds prices and training set of ACME."""
    steps.prices("ACME", {"source": "files", "path": str(price_file)}, store=store)
    steps.training_set("ACME", {}, store=store)
    return store


def contents(store, symbol="ACME"):
    return {
        table: current.version
        for table in ("prices", "training_set", "trained_model")
        if (current := store.current(table, symbol)) is not None
    }


def test_prices_are_kept_as_they_are(store, price_file, price_rows):
    report = steps.prices("ACME", {"source": "files", "path": str(price_file)}, store=store)
    kept, table = store.read("prices", "ACME")
    assert list(kept["Date"].dt.strftime("%Y-%m-%d")) == list(price_rows["Date"])
    assert list(kept["AdjClose"]) == pytest.approx(list(price_rows["Adj Close"]), rel=1e-15)
    assert report.data_version == table.digest
    assert (report.facts["first_date"], report.facts["last_date"]) == ("2020-01-01", "2021-07-13")


def test_the_same_prices_again_are_no_new_version(store, price_file):
    given = {"source": "files", "path": str(price_file)}
    first, second = (steps.prices("ACME", given, store=store) for _ in range(2))
    assert (first.data_version, first.table.version) == (second.data_version, second.table.version)


def test_a_changed_price_is_a_new_version_of_everything_after_it(prepared, price_rows, tmp_path):
    before = {name: prepared.current(name, "ACME").digest for name in ("prices", "training_set")}
    price_rows.loc[200, "Volume"] += 1
    price_rows.to_csv(tmp_path / "ACME.csv", index=False)
    prices = steps.prices("ACME", {"source": "files", "path": str(tmp_path / "ACME.csv")}, store=prepared)
    training_set = steps.training_set("ACME", {}, store=prepared)
    assert prices.data_version != before["prices"]
    assert training_set.data_version != before["training_set"]


def test_a_trained_model_leaves_its_parameters_metrics_plots_and_model_in_mlflow(prepared, tracker):
    report = steps.trained_model("ACME", SMALL, store=prepared, tracker=tracker, origin=TEST)
    client = MlflowClient(tracker.tracking_uri)
    run = client.get_run(report.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert {name: run.data.params[name] for name in SMALL} == {name: str(value) for name, value in SMALL.items()}
    assert run.data.metrics == pytest.approx(report.metrics)
    assert run.data.tags["symbol"] == "ACME"
    assert run.data.tags["recipe"] == "honest"
    assert run.data.tags["data_version"] == prepared.current("training_set", "ACME").digest
    assert run.data.tags["orchestrator"] == "test"
    assert run.data.tags["orchestrator_run_id"] == "run-1"
    assert {"code_version", "git_commit"} <= set(run.data.tags)
    plots = {file.path for file in client.list_artifacts(report.mlflow_run_id, "plots")}
    assert plots == {"plots/forecast.png", "plots/residuals.png", "plots/feature_importance.png"}


def test_the_tracked_model_forecasts_what_the_table_says(prepared, tracker):
    import mlflow

    report = steps.trained_model("ACME", SMALL, store=prepared, tracker=tracker, origin=TEST)
    kept, table = prepared.read("trained_model", "ACME")
    data, _ = prepared.read("training_set", "ACME")
    test_rows = data[data["split"] == "test"].sort_values("position")
    mlflow.set_tracking_uri(tracker.tracking_uri)
    model = mlflow.sklearn.load_model(report.model_uri)
    returns = model.predict(test_rows[list(model.feature_names_in_)])
    assert list(kept["forecast"]) == pytest.approx(list(test_rows["price"] * (1 + returns)), rel=1e-12)
    assert json.loads(table.metadata["metrics"]) == pytest.approx(report.metrics)


def test_a_run_keeps_to_what_it_has_made_while_another_writes_the_same_tables(store, tracker, price_rows, tmp_path):
    """Run A, with run B between each two of its steps: B has other prices, another recipe and another horizon."""
    files = {"A": tmp_path / "A.csv", "B": tmp_path / "B.csv"}
    price_rows.to_csv(files["A"], index=False)
    price_rows.head(300).to_csv(files["B"], index=False)
    splits = {"A": {"recipe": "honest"}, "B": {"recipe": "article", "horizon": 20}}
    forest = {"max_depth": 2, "n_estimators": 2, "min_samples_leaf": 50}
    grid = {"grid": {"max_depth": [2], "n_estimators": [2]}, "folds": 2}
    tracked = {"store": store, "tracker": tracker, "origin": TEST}
    made = {"A": {}, "B": {}}
    said = {}

    def run(who, step, *given, **tools):
        said[who, step.__name__] = report = step("ACME", *given, **tools, inputs=made[who])
        made[who] |= report.outputs
        assert {name: made[who].get(name, its) for name, its in report.inputs.items()} == report.inputs
        return report

    for who in made:
        made[who] |= steps.prices("ACME", {"source": "files", "path": str(files[who])}, store=store).outputs
    for who in made:
        run(who, steps.training_set, splits[who], store=store)
    for who in made:
        run(who, steps.grid_search_results, grid, **tracked)
        run(who, steps.trained_model, forest, **tracked)
    run("A", steps.champion_model, {"beat_persistence": False}, **tracked)
    assert made["A"].keys() == made["B"].keys() | {"champion_model"}
    assert all(made["A"][table] != its for table, its in made["B"].items())
    model = said["A", "trained_model"]
    assert model.facts["recipe"] == "honest"
    assert said["A", "grid_search_results"].facts["horizon"] == 1
    assert said["A", "champion_model"].facts["model_digest"] == model.facts["model_digest"]
    assert said["A", "champion_model"].inputs == {
        name: made["A"][name] for name in ("trained_model", "training_set", "prices")
    }
    # What is written down says the same.
    training_set = made["A"]["training_set"]
    tags = MlflowClient(tracker.tracking_uri).get_run(model.mlflow_run_id).data.tags
    assert (tags["data_version"], tags["training_set_version"]) == (
        training_set["digest"],
        str(training_set["version"]),
    )
    assert model.table.metadata["training_set_digest"] == training_set["digest"]
    assert said["A", "training_set"].table.metadata["prices_digest"] == made["A"]["prices"]["digest"]

    # Prices of B come between the forecast and how good it was.
    assert set(run("A", steps.price_forecast, {}, **tracked).inputs) == {"prices", "champion_model"}
    steps.prices("ACME", {"source": "files", "path": str(files["B"])}, store=store)
    assert run("A", steps.forecast_quality, {}, store=store).inputs["prices"] == made["A"]["prices"]


def test_a_step_that_is_handed_nothing_says_what_it_took(prepared):
    table = prepared.current("prices", "ACME")
    report = steps.training_set("ACME", {}, store=prepared)
    assert report.inputs == {"prices": {"version": table.version, "digest": table.digest}}


def test_a_version_that_was_given_away_again_is_refused(prepared, price_rows, tmp_path):
    made = steps.training_set("ACME", {}, store=prepared).inputs
    shutil.rmtree(Path(prepared.root) / "prices")
    price_rows.head(300).to_csv(tmp_path / "other.csv", index=False)
    again = steps.prices("ACME", {"source": "files", "path": str(tmp_path / "other.csv")}, store=prepared)
    assert again.table.version == made["prices"]["version"]
    with pytest.raises(TableNotFound, match=r"version 0 is [0-9a-f]{12} and not [0-9a-f]{12}, which this run"):
        steps.training_set("ACME", {}, store=prepared, inputs=made)
    with pytest.raises(TableNotFound, match=r"has no version 7, which this run is to read: .* Run the steps again"):
        steps.training_set("ACME", {}, store=prepared, inputs={"prices": {**made["prices"], "version": 7}})


def test_both_hyper_parameters_reach_the_model_exactly_as_given(prepared, tracker):
    import mlflow

    report = steps.trained_model(
        "ACME", {"max_depth": 3, "n_estimators": 7}, store=prepared, tracker=tracker, origin=TEST
    )
    mlflow.set_tracking_uri(tracker.tracking_uri)
    model = mlflow.sklearn.load_model(report.model_uri)
    assert (model.max_depth, model.n_estimators, len(model.estimators_)) == (3, 7, 7)


def test_the_same_training_twice_is_the_same_model(prepared, tracker):
    first, second = (
        steps.trained_model("ACME", SMALL, store=prepared, tracker=tracker, origin=TEST, n_jobs=n_jobs)
        for n_jobs in (1, 2)
    )
    assert first.data_version == second.data_version
    assert first.metrics == second.metrics
    assert first.mlflow_run_id != second.mlflow_run_id


def test_the_recipe_travels_with_the_training_set(prepared, tracker):
    steps.training_set("ACME", {"recipe": "article"}, store=prepared)
    report = steps.trained_model("ACME", {"n_estimators": 3}, store=prepared, tracker=tracker, origin=TEST)
    assert report.facts["recipe"] == "article"
    assert report.facts["parameters"]["min_samples_leaf"] == 1


def test_the_article_leaks_and_the_honest_recipe_does_not(prepared):
    assert steps.training_set("ACME", {"recipe": "article"}, store=prepared).facts["leaks"]
    assert not steps.training_set("ACME", {"recipe": "honest"}, store=prepared).facts["leaks"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s, t: steps.prices("../x", {}, store=s), ParameterError),
        (lambda s, t: steps.prices("ACME", {"source": "ftp"}, store=s), ParameterError),
        (lambda s, t: steps.prices("ACME", {"source": "bundled"}, store=s), SourceError),
        (lambda s, t: steps.prices("ACME", {"source": "files", "path": "no.csv"}, store=s), SourceError),
        (lambda s, t: steps.training_set("ACME", {"recipe": "blog"}, store=s), ParameterError),
        (lambda s, t: steps.training_set("ACME", {"horizon": 0}, store=s), ParameterError),
        (lambda s, t: steps.training_set("OTHER", {}, store=s), TableNotFound),
        (lambda s, t: steps.trained_model("ACME", {"max_depth": 0}, store=s, tracker=t, origin=TEST), ParameterError),
        (lambda s, t: steps.trained_model("ACME", {"depth": 3}, store=s, tracker=t, origin=TEST), ParameterError),
        (lambda s, t: steps.trained_model("OTHER", {}, store=s, tracker=t, origin=TEST), TableNotFound),
    ],
)
def test_bad_input_is_refused_and_the_tables_stay_as_they_were(prepared, tracker, call, error):
    before = contents(prepared)
    with pytest.raises(error):
        call(prepared, tracker)
    assert contents(prepared) == before


def test_rows_that_break_the_contract_leave_the_last_good_table(prepared, price_rows, tmp_path):
    before = contents(prepared)
    price_rows.loc[3, "Close"] = -1.0
    price_rows.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(PriceDataError, match=r"(?s)Close = '-1.*2020-01-06"):
        steps.prices("ACME", {"source": "files", "path": str(tmp_path / "bad.csv")}, store=prepared)
    assert contents(prepared) == before


def test_an_mlflow_that_is_down_costs_no_training(prepared, home):
    # These rows would make the training fail, so that whichever comes first shows.
    frame, table = prepared.read("training_set", "ACME")
    frame["volume_ratio"] = float("inf")
    prepared.write("training_set", "ACME", frame, metadata=table.metadata)
    down = MlflowTracker("steps", "http://127.0.0.1:9", state_dir=home / "open_runs")
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9"):
        steps.trained_model("ACME", SMALL, store=prepared, tracker=down, origin=TEST)


def test_a_training_whose_table_cannot_be_written_ends_its_mlflow_run_failed(prepared, tracker, home):
    (home / "store" / "trained_model").write_text("a file where the table should be")
    with pytest.raises(StoreError):
        steps.trained_model("ACME", SMALL, store=prepared, tracker=tracker, origin=TEST)
    client = MlflowClient(tracker.tracking_uri)
    experiment = client.get_experiment_by_name("steps")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]


def test_a_report_is_json(prepared, tracker):
    report = steps.trained_model("ACME", SMALL, store=prepared, tracker=tracker, origin=TEST)
    said = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert said["metrics"]["rmse"] == report.metrics["rmse"]
    assert said["plots"] == ["feature_importance", "forecast", "residuals"]
    assert said["table"]["rows"] == report.table.rows


# ------------------------------------------------------------------------------------------------------------ search

GRID = {"grid": {"max_depth": [2, 4], "n_estimators": [2, 4, 6], "max_features": [2, 0.5]}}


def search(prepared, tracker, given=GRID, **how):
    return steps.grid_search_results("ACME", given, store=prepared, tracker=tracker, origin=TEST, **how)


def test_a_search_leaves_every_candidate_as_a_row_with_what_was_best_beside(prepared, tracker):
    report = search(prepared, tracker)
    frame, table = prepared.read("grid_search_results", "ACME")
    assert len(frame) == report.facts["candidates"] == 12
    best = frame.loc[frame["rank_test_score"].idxmin()]
    assert (
        json.loads(best["params"]) == report.facts["best_parameters"] == json.loads(table.metadata["best_parameters"])
    )
    assert float(table.metadata["best_score"]) == best["mean_test_score"] == report.metrics["best_score"]
    assert table.metadata["training_set_digest"] == prepared.current("training_set", "ACME").digest
    assert table.metadata["mlflow_run_id"] == report.mlflow_run_id
    assert json.loads(table.metadata["work"])["trees_grown"] > 0
    assert steps.SEARCH_CACHE
    # As an asset's metadata and as the shell's JSON.
    json.dumps(report.as_dict(), allow_nan=False)


def test_a_search_in_mlflow_shows_grid_candidates_best_and_work(prepared, tracker):
    report = search(prepared, tracker)
    client = MlflowClient(tracker.tracking_uri)
    run = client.get_run(report.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["pipeline"] == "search_model_pipeline"
    assert run.data.params["grid_max_features"] == "2, 0.5"
    assert run.data.params["fixed_min_samples_leaf"] == "100"
    assert run.data.params["best_max_depth"] == str(report.facts["best_parameters"]["max_depth"])
    assert run.data.metrics["best_score"] == report.metrics["best_score"]
    assert run.data.metrics["work_trees_asked"] == 3 * 4 * (2 + 4 + 6)
    assert len(client.get_metric_history(run.info.run_id, "mean_test_score")) == 12
    by_trees = client.get_metric_history(run.info.run_id, "best_score_by_n_estimators")
    assert sorted(metric.step for metric in by_trees) == [2, 4, 6]
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"candidates.json", "grid.json", "work.json", "plots"} <= artifacts


def test_times_do_not_count_as_data(prepared, tracker):
    first, second = (search(prepared, tracker) for _ in range(2))
    assert first.data_version == second.data_version
    assert first.table.digest != second.table.digest  # the times are another time's
    assert search(prepared, tracker, {**GRID, "folds": 4}).data_version != first.data_version


def test_a_cached_search_grows_nothing_again_and_finds_the_same(prepared, tracker, tmp_path):
    first, second = (search(prepared, tracker, cache=tmp_path / "cache") for _ in range(2))
    assert second.facts["work"]["trees_grown"] == 0
    assert second.data_version == first.data_version


def test_both_names_find_the_same(prepared, tracker):
    from mlops_dagster.search import LocalEngine

    here = search(prepared, tracker)
    there = steps.spark_grid_search_results(
        "ACME", GRID, store=prepared, tracker=tracker, origin=TEST, engine=LocalEngine(2)
    )
    assert there.data_version == here.data_version
    assert (here.table.table, there.table.table) == ("grid_search_results", "spark_grid_search_results")


def test_progress_is_told(prepared, tracker):
    told = []
    search(prepared, tracker, progress=told.append)
    assert told[-1].trees_done >= told[-1].trees_needed > 0
    assert told[-1].units_done == told[-1].units


@pytest.mark.parametrize(
    "given", [{"grid": {"max_depth": []}}, {"preset": "huge"}, {"folds": 0}, {"grid": {"max_features": [50]}}]
)
def test_a_bad_search_is_refused_before_anything_is_begun(prepared, tracker, given):
    with pytest.raises(ParameterError):
        search(prepared, tracker, given)
    client, experiment = tracker.connect()
    assert client.search_runs([experiment]) == []
    assert prepared.current("grid_search_results", "ACME") is None


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("lost"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_search_that_fails_leaves_the_last_good_table(prepared, tracker, error, status):
    class Broken:
        """An engine that fails, as a cluster does, or is interrupted, as by Ctrl-C."""

        slots = 2
        cuts_groups = False

        def run(self, units, data, receive):
            raise error

    before = search(prepared, tracker).table.version
    with pytest.raises(type(error)):
        search(prepared, tracker, {**GRID, "candidates": "children"}, engine=Broken())
    assert prepared.current("grid_search_results", "ACME").version == before
    client, experiment = tracker.connect()
    assert sorted(run.info.status for run in client.search_runs([experiment])) == sorted(["FINISHED", status])


def test_a_plan_says_what_would_be_done_and_does_it_not(prepared, tracker):
    plan = steps.plan_search("ACME", GRID, store=prepared)
    assert plan.as_dict()["candidates"] == 12
    assert plan.as_dict()["trees_asked"] == 144
    assert "12 candidates on 3 folds" in str(plan)
    assert prepared.current("grid_search_results", "ACME") is None
