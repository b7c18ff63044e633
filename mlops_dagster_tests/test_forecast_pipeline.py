"""forecast_pipeline in Dagster: assets, checks, metadata, run config, and a symbol without a champion."""

import dagster as dg
import pandas as pd
import pytest

from mlops_dagster import pipelines
from mlops_dagster.stack.store import Store
from mlops_dagster_tests.conftest import embedded_plot
from mlops_dagster_tests.test_build_model import SMALL, failure

ASSETS = ("prices", "price_forecast", "forecast_quality")
CHECKS = (
    "forecast_is_fresh",
    "features_have_not_drifted",
    "forecast_error_has_not_drifted",
    "interval_covers_the_truth",
)


def launch(defs, instance, **config):
    return defs.resolve_job_def("forecast_pipeline").execute_in_process(
        run_config={"ops": {"price_forecast": {"config": config}}},
        partition_key="ACME",
        instance=instance,
        raise_on_error=False,
    )


@pytest.fixture
def champion(defs, instance):
    ops = {"trained_model": {"config": SMALL}, "champion_model": {"config": {"beat_persistence": False}}}
    result = defs.resolve_job_def("build_model_pipeline").execute_in_process(
        run_config={"ops": ops}, partition_key="ACME", instance=instance
    )
    assert result.success


def metadata(instance, asset):
    return instance.get_latest_materialization_event(dg.AssetKey(asset)).asset_materialization.metadata


def test_forecasts_are_made_scored_and_checked(champion, defs, instance, home):
    result = launch(defs, instance, catch_up=60)
    assert result.success
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert made == set(ASSETS)
    checks = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert set(CHECKS) <= set(checks)
    assert checks["forecast_is_fresh"].passed
    assert checks["forecast_is_fresh"].metadata["days_behind"].value == "0"
    for name in CHECKS:
        assert checks[name].severity == dg.AssetCheckSeverity.WARN
        assert checks[name].description
    # These 400 days are drawn with one volatility: nothing has drifted.
    assert checks["features_have_not_drifted"].passed
    assert checks["forecast_error_has_not_drifted"].metadata["days"].value == "20"
    assert checks["forecast_error_has_not_drifted"].passed
    assert 0 <= float(checks["interval_covers_the_truth"].metadata["coverage"].value) <= 1

    forecast, quality = metadata(instance, "price_forecast"), metadata(instance, "forecast_quality")
    assert forecast["rows_appended"].value == 61
    assert forecast["lower"].value < forecast["forecast"].value < forecast["upper"].value
    assert "as regular as those before (B)" in forecast["days_counted"].value  # business days, holidays included
    for name in ("days_scored", "skill_vs_persistence_20", "coverage_20", "rmse_60"):
        assert isinstance(quality[name].value, float)  # poor_forecasts reads them
    for asset, plot in (("price_forecast", "forecast_and_price"), ("forecast_quality", "quality")):
        # A picture out of MLflow, where the run that trained the model keeps it, and below `plots` the same for good.
        assert f"/get-artifact?path=plots/{asset}-0/{plot}.png&run_uuid=" in metadata(instance, asset)[plot].value
        assert embedded_plot(metadata(instance, asset), plot).startswith(b"\x89PNG")
        assert "/#/models/mlops_dagster.ACME/versions/1" in metadata(instance, asset)["mlflow"].value
        columns = metadata(instance, asset)["dagster/column_schema"].value.columns
        assert [column.name for column in columns if not column.description] == []
    # The state of things, inline; of what is as it should be no more than that.
    state = quality["state"].value
    assert len(state) < 1000
    assert "| Champions | version 1 since 20" in state
    assert "|  | Is it as good as expected? yes |" in state
    assert "| Last searches | nothing yet |" in state
    assert set(quality["report"].value["inputs"]) == {"price_forecast", "prices"}  # it reads more than the step does
    frame, _ = Store(home / "store").read("price_forecast", "ACME")
    assert set(frame["run_id"]) == {result.run_id}
    assert set(frame["by"]) == {"dagster"}


def test_a_check_says_that_a_forecast_is_old(champion, defs, instance, home):
    assert launch(defs, instance).success
    store = Store(home / "store")
    prices, _ = store.read("prices", "ACME")
    more = prices.tail(3).assign(Date=prices["Date"].tail(3) + pd.Timedelta(days=7))
    store.write("prices", "ACME", pd.concat([prices, more], ignore_index=True))
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        op_selection=["price_forecast_forecast_is_fresh"], instance=instance, partition_key="ACME"
    )
    (fresh,) = result.get_asset_check_evaluations()
    assert not fresh.passed
    assert "3 days behind; run forecast_pipeline." in fresh.description


def test_without_a_champion_the_step_fails_and_says_the_cure(defs, instance, home):
    step, said = failure(launch(defs, instance))
    assert step == "price_forecast"
    assert "ACME has no champion: no model was judged yet. Build one: mlops build-model --symbol ACME" in said
    assert Store(home / "store").current("price_forecast", "ACME") is None


@pytest.mark.parametrize("config", [{"interval": 1.5}, {"catch_up": 251}], ids=str)
def test_a_value_out_of_bounds_fails_the_first_step_before_any_work(defs, instance, home, config):
    step, said = failure(launch(defs, instance, **config))
    assert step == "prices"
    assert f"{next(iter(config))}=" in said
    assert not (home / "store").exists()


def test_the_launchpad_opens_with_the_defaults(defs):
    config = defs.resolve_job_def("forecast_pipeline").partitioned_config.get_run_config_for_partition_key("ACME")
    assert config["ops"]["price_forecast"]["config"] == pipelines.FORECASTING_DEFAULTS
