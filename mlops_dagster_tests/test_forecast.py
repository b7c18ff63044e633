"""Forecasts and their quality as steps: on real tables, a real MLflow database, and prices that can be reckoned.

The price grows by exactly one percent a day on the days of New York, so the champion forecasts one percent more.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import exchange_calendars
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlops_dagster import steps
from mlops_dagster.errors import ParameterError
from mlops_dagster.stack.registry import CHAMPION, ModelRefused
from mlops_dagster.stack.store import Store, TableNotFound
from mlops_dagster.stack.tracking import MlflowTracker, Origin
from mlops_dagster.steps.champion import NoChampion
from mlops_dagster_tests.contracts.rivals import both_at_once

TEST = Origin("test", "run-1", None)
SMALL = {"max_depth": 3, "n_estimators": 4, "min_samples_leaf": 5}
SESSIONS = exchange_calendars.get_calendar("XNYS", start="2018-01-02", end="2019-03-29").sessions
DAYS = 250  # up to 2018-12-31, with one session left out of the beginning


def growing(days, first=0):
    """Prices of so many sessions; the first day can be left out without changing those that follow."""
    price = [100 * 1.01**day for day in range(days)]
    frame = pd.DataFrame({"Date": SESSIONS[1 : days + 1], "AdjClose": price})
    for name, factor in (("Open", 1.0), ("High", 1.005), ("Low", 0.995), ("Close", 1.0)):
        frame[name] = frame["AdjClose"] * factor
    frame["Volume"] = 1_000_000.0
    return frame[first:].reset_index(drop=True)


@dataclass
class Stack:
    """A symbol's tables, a copy of its own, and the MLflow that its models are in."""

    symbol: str
    store: Store
    tracker: MlflowTracker

    def prices(self, frame):
        self.store.write("prices", self.symbol, frame)

    def forecast(self, *, store=None, exchange="XNYS", **given):
        its = {"store": store or self.store, "tracker": self.tracker, "origin": TEST}
        return steps.price_forecast(self.symbol, given, **its, exchange=exchange)

    def quality(self):
        return steps.forecast_quality(self.symbol, {}, store=self.store)

    @property
    def rows(self):
        return self.store.read("price_forecast", self.symbol)[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, empty_mlflow):
    """Champions of several symbols, each made once."""
    home = tmp_path_factory.mktemp("forecasts")
    (home / "mlflow").mkdir()
    shutil.copy(empty_mlflow, home / "mlflow" / "mlflow.db")
    tracker = MlflowTracker(
        "steps",
        f"sqlite:///{home}/mlflow/mlflow.db",
        artifact_location=(home / "mlflow" / "artifacts").as_uri(),
        state_dir=home / "open_runs",
    )
    store = Store(home / "store")
    for symbol, recipe, rules, champion in (
        ("ACME", {}, {}, "1"),
        ("FAR", {"horizon": 5}, {}, "1"),
        ("BLOG", {"recipe": "article", "horizon": 3}, {"allow_leaks": True, "beat_persistence": False}, "1"),
        ("KEPT", {"recipe": "article"}, {}, None),
    ):
        store.write("prices", symbol, growing(DAYS))
        steps.training_set(symbol, recipe, store=store)
        its = {"store": store, "tracker": tracker, "origin": TEST}
        steps.trained_model(symbol, SMALL, **its)
        assert steps.champion_model(symbol, rules, **its).facts["champion"] == champion
    return home, tracker


@pytest.fixture
def stack_of(trained, tmp_path):
    home, tracker = trained
    shutil.copytree(home / "store", tmp_path / "store")
    return lambda symbol: Stack(symbol, Store(tmp_path / "store"), tracker)


@pytest.fixture
def acme(stack_of):
    return stack_of("ACME")


def test_the_next_session_is_forecast(acme):
    report = acme.forecast()
    (row,) = acme.rows.to_dict("records")
    today = 100 * 1.01 ** (DAYS - 1)
    assert (row["Date"], row["TargetDate"]) == (pd.Timestamp("2018-12-31"), pd.Timestamp("2019-01-02"))
    assert (row["price"], row["horizon"], row["interval"]) == (today, 1, 0.9)
    for name in ("forecast", "lower", "upper", "trees_lower", "trees_upper"):
        assert row[name] == pytest.approx(1.01 * today)
    assert row["expected_rmse"] == pytest.approx(0, abs=1e-12)
    assert (row["late"], row["model_version"], row["by"], row["run_id"]) == (False, "1", "test", "run-1")
    assert report.facts["target_date"] == "2019-01-02"
    assert report.facts["days_counted"] == "days of exchange XNYS"
    assert report.facts["rows_appended"] == 1
    assert report.metrics["change_percent"] == pytest.approx(1.0)
    assert report.plots["forecast_and_price"].startswith(b"\x89PNG")
    assert len(report.plots["forecast_and_price"]) < 25_000


def test_the_same_again_changes_nothing_not_even_the_version(acme):
    first, again = acme.forecast(), acme.forecast()
    assert again.table == first.table
    assert again.facts["rows_appended"] == 0
    assert again.data_version == first.data_version


def test_each_new_day_adds_a_row_and_rewrites_none(acme):
    acme.forecast()
    before = acme.rows
    acme.prices(growing(DAYS + 1))
    assert acme.forecast().facts["rows_appended"] == 1
    pd.testing.assert_frame_equal(acme.rows[:1], before)
    assert acme.rows["Date"].tolist() == [pd.Timestamp("2018-12-31"), pd.Timestamp("2019-01-02")]


def test_a_forecast_is_scored_once_its_day_has_come(acme):
    acme.forecast()
    nothing = acme.quality()
    assert nothing.facts["summary"].startswith("Nothing to score yet")
    assert (nothing.table.rows, nothing.metrics, nothing.plots) == (0, {"days_scored": 0.0}, {})
    assert nothing.facts["days_waiting"] == 1
    acme.prices(growing(DAYS + 1))
    acme.forecast()
    report = acme.quality()
    frame, _ = acme.store.read("forecast_quality", "ACME")
    (row,) = frame.to_dict("records")
    assert row["Date"] == pd.Timestamp("2018-12-31")
    assert row["TruthDate"] == row["TargetDate"] == pd.Timestamp("2019-01-02")
    assert row["truth"] == pytest.approx(100 * 1.01**DAYS)
    assert row["error"] == pytest.approx(0, abs=1e-9)
    assert row["persistence_squared_error"] == pytest.approx((0.01 * row["price"]) ** 2)
    assert report.metrics["days_scored"] == 1
    assert report.metrics["skill_vs_persistence_20"] == pytest.approx(1.0)
    assert report.plots["quality"].startswith(b"\x89PNG")
    assert acme.quality().table == report.table


def test_a_target_day_on_which_nobody_traded_is_kept_beside_the_day_of_the_truth(acme):
    acme.forecast()
    acme.prices(growing(DAYS + 2).drop(DAYS).reset_index(drop=True))
    acme.quality()
    row = acme.store.read("forecast_quality", "ACME")[0].iloc[0]
    assert (row["TargetDate"], row["TruthDate"]) == (pd.Timestamp("2019-01-02"), pd.Timestamp("2019-01-03"))


def test_prices_that_are_adjusted_later_are_no_error(acme):
    acme.forecast()
    halved = growing(DAYS + 1)
    for name in ("Open", "High", "Low", "Close", "AdjClose"):
        halved[name] /= 2
    acme.prices(halved)
    acme.quality()
    row = acme.store.read("forecast_quality", "ACME")[0].iloc[0]
    assert row["price"] == pytest.approx(100 * 1.01 ** (DAYS - 1))
    assert row["error"] == pytest.approx(0, abs=1e-9)


def test_days_that_were_missed_are_caught_up_and_said_to_be_late(acme):
    acme.forecast()
    acme.prices(growing(DAYS + 6))
    assert acme.forecast(catch_up=10).facts["rows_appended"] == 1 + 5 + 4  # today, those without a run, those before
    rows = acme.rows.sort_values("Date")
    assert rows["late"].tolist() == [True] * 4 + [False] + [True] * 5 + [False]
    assert rows["Date"].is_unique
    assert rows["TargetDate"].tolist() == list(SESSIONS[DAYS - 3 : DAYS + 8])
    assert acme.forecast(catch_up=10).facts["rows_appended"] == 0
    assert acme.quality().metrics["days_scored"] == 10


def test_what_the_champion_has_learned_from_is_never_caught_up(acme):
    knows = pd.Timestamp(acme.tracker.registry.get("ACME", "1").tags["knows_until"])
    acme.forecast(catch_up=250)
    assert acme.rows["Date"].min() == min(day for day in SESSIONS if day > knows)


def test_another_interval_is_another_forecast(acme):
    acme.forecast()
    assert acme.forecast(interval=0.5).facts["rows_appended"] == 1
    assert acme.rows["interval"].tolist() == [0.9, 0.5]
    assert acme.forecast().facts["rows_appended"] == 0


def test_a_longer_horizon_has_as_many_open_days(stack_of):
    far = stack_of("FAR")
    assert far.forecast().facts["rows_appended"] == 5
    rows = far.rows
    assert rows["Date"].tolist() == list(SESSIONS[DAYS - 4 : DAYS + 1])
    assert rows["TargetDate"].tolist() == list(SESSIONS[DAYS + 1 : DAYS + 6])
    assert (rows["forecast"] / rows["price"]).tolist() == pytest.approx([1.01**5] * 5)
    far.prices(growing(DAYS + 1))
    assert far.forecast().facts["rows_appended"] == 1
    assert far.quality().metrics["days_scored"] == 1


def test_the_articles_recipe_forecasts_too(stack_of):
    blog = stack_of("BLOG")
    report = blog.forecast(catch_up=20)
    assert report.facts["rows_appended"] == 3  # it has learned from all others
    assert blog.rows["expected_rmse"].isna().all()
    assert (blog.rows["lower"] <= blog.rows["upper"]).all()


def test_a_symbol_that_is_traded_at_weekends_counts_its_own_days(acme):
    daily = growing(DAYS)
    daily["Date"] = pd.date_range(end="2018-12-28", periods=DAYS)
    acme.prices(daily)
    report = acme.forecast()
    assert report.facts["target_date"] == "2018-12-29"  # a Saturday
    assert "as regular as those before" in report.facts["days_counted"]


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_without_a_champion_nothing_is_written(acme, tmp_path):
    empty = Stack("ACME", Store(tmp_path / "empty"), acme.tracker)
    with pytest.raises(TableNotFound, match="prices"):
        empty.forecast()
    empty.prices(growing(DAYS))
    with pytest.raises(NoChampion, match=r"no model was judged yet. Build one: mlops build-model --symbol ACME"):
        empty.forecast()
    with pytest.raises(TableNotFound, match="price_forecast"):
        empty.quality()
    assert empty.store.current("price_forecast", "ACME") is None


def test_a_gate_that_has_kept_every_model_out_is_said_with_its_reason(stack_of):
    kept = stack_of("KEPT")
    said = r"kept every model out so far\. The last, version 1: Its training set leaks.* mlops promote --symbol KEPT"
    with pytest.raises(NoChampion, match=said):
        kept.forecast()


@pytest.fixture
def made_before(acme):
    """A table that has to stay as it is."""
    report = acme.forecast()
    acme.prices(growing(DAYS + 1))
    yield report.table
    assert acme.store.current("price_forecast", "ACME") == report.table


def test_an_alias_that_somebody_has_moved_is_an_error(acme, made_before):
    client, name = MlflowClient(acme.tracker.tracking_uri), "mlops_dagster.ACME"
    client.delete_registered_model_alias(name, CHAMPION)
    try:
        with pytest.raises(
            NoChampion, match=r"version 1 is champion, but nobody has the alias 'champion' in mlops_dag"
        ):
            acme.forecast()
        its = {"store": acme.store, "tracker": acme.tracker, "origin": TEST}
        version = steps.trained_model("ACME", SMALL, **its).facts["model_version"]
        acme.tracker.registry.set_alias("ACME", CHAMPION, version)
        with pytest.raises(NoChampion, match=rf"but version {version} has the alias .*mlops promote --symbol ACME"):
            acme.forecast()
    finally:
        acme.tracker.registry.set_alias("ACME", CHAMPION, "1")


def test_a_damaged_champion_is_an_error(acme, made_before):
    source = MlflowClient(acme.tracker.tracking_uri).get_model_version_download_uri("mlops_dagster.ACME", "1")
    file = Path(urlparse(source).path) / "model.skops"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    try:
        with pytest.raises(ModelRefused, match=r"champion of ACME can't be used: .*SHA-256.*mlops rollback"):
            acme.forecast()
    finally:
        file.write_bytes(whole)


def test_prices_without_what_the_champion_learned_are_an_error(acme, made_before):
    acme.prices(growing(DAYS + 1, first=180))
    with pytest.raises(ParameterError, match="give a smaller horizon, more prices"):
        acme.forecast()


@pytest.mark.parametrize(
    "given",
    [{"interval": 0.49}, {"interval": 1}, {"interval": "0.9"}, {"catch_up": -1}, {"catch_up": 251}, {"catch_up": 1.0}],
    ids=str,
)
def test_a_bad_parameter_is_refused_before_any_work(acme, given):
    (name,) = given
    with pytest.raises(ParameterError, match=rf"{name}=.*give "):
        acme.forecast(**given)
    assert acme.store.current("price_forecast", "ACME") is None


def test_the_bounds_themselves_are_allowed(acme):
    acme.forecast(interval=0.5, catch_up=0)
    acme.forecast(interval=0.99, catch_up=250)


def test_forecast_quality_takes_no_parameter(acme):
    with pytest.raises(ParameterError, match="interval"):
        steps.forecast_quality("ACME", {"interval": 0.9}, store=acme.store)


def test_an_unknown_exchange_is_refused(acme, made_before):
    with pytest.raises(ParameterError, match=r"calendar='NOWHERE'"):
        acme.forecast(exchange="NOWHERE")


def test_of_two_runs_at_once_one_finds_that_the_other_has_forecast(acme):
    reports = both_at_once(acme.store.root, "price_forecast", lambda store: acme.forecast(store=store))
    assert sorted(report.facts["rows_appended"] for report in reports) == [0, 1]
    assert len(acme.rows) == 1
