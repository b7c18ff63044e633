"""The automation conditions of the real assets, on events as their runs leave them."""

import dagster as dg
import pytest

from mlops_dagster.declared import model_definitions
from mlops_dagster.spec.project import find_model
from mlops_dagster_tests.contracts.stock import OWN

STEPS = ("champion_model", "predictions", "prediction_quality")
KEYS = {"data": ["prices", "data"], **{step: ["stock_price", step] for step in STEPS}}
DEFS = model_definitions(find_model("stock_price", OWN))
TARGETS = {"predictions", "prediction_quality"}


class Story:
    """What happens to two symbols, and what the conditions ask for after each happening."""

    def __init__(self):
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions("prices_symbol", ["ACME", "BETA"])
        self.cursor = None
        self.looks()

    def made(self, asset, version, symbol="ACME", **metadata):
        tags = {"dagster/data_version": version}
        event = dg.AssetMaterialization(KEYS[asset], partition=symbol, tags=tags, metadata=metadata)
        self.instance.report_runless_asset_event(event)

    def decided(self, champion, symbol="ACME"):
        self.made("champion_model", f"version-{champion}", symbol, champion=champion)

    def built(self, champion, symbol="ACME"):
        self.made("data", "1", symbol)
        self.decided(champion, symbol)

    def forecast(self, version="1", symbol="ACME"):
        self.made("predictions", version, symbol)
        self.made("prediction_quality", version, symbol)

    def looks(self):
        """Evaluate once; return what is asked for, as (asset, symbol)."""
        result = dg.evaluate_automation_conditions(
            defs=DEFS,
            instance=self.instance,
            cursor=self.cursor,
            asset_selection=dg.AssetSelection.assets(*(dg.AssetKey(KEYS[step]) for step in TARGETS)),
        )
        self.cursor = result.cursor
        keys = {step: dg.AssetKey(KEYS[step]) for step in TARGETS}
        return {(step, symbol) for step, key in keys.items() for symbol in result.get_requested_partitions(key)}


@pytest.fixture
def story():
    story = Story()
    yield story
    story.instance.dispose()


def both(symbol="ACME"):
    return {(asset, symbol) for asset in TARGETS}


def test_a_new_champion_is_forecast_with_once(story):
    assert story.looks() == set()
    story.built("1")
    assert story.looks() == both()
    assert story.looks() == set()  # asked for, not yet made
    story.forecast()
    assert story.looks() == set()


def test_a_challenger_that_the_gate_kept_out_changes_nothing(story):
    story.built("1")
    story.looks()
    story.forecast()
    story.looks()
    story.decided("1")
    assert story.looks() == set()
    story.decided("2")
    assert story.looks() == both()


def test_without_a_champion_nothing_is_asked_for(story):
    story.built(None)
    assert story.looks() == set()
    assert story.looks() == set()


def test_what_predict_pipeline_has_done_is_not_done_again(story):
    story.built("1")
    story.looks()
    story.forecast()
    story.looks()
    story.made("data", "2")
    story.forecast("2")
    assert story.looks() == set()
    assert story.looks() == set()


def test_prices_that_changed_alone_are_scored(story):
    story.built("1")
    story.looks()
    story.forecast()
    story.looks()
    story.made("data", "2")
    assert story.looks() == {("prediction_quality", "ACME")}
    story.made("prediction_quality", "2")
    story.made("data", "2")  # the same prices again
    assert story.looks() == set()


def test_each_symbol_on_its_own(story):
    story.built("1", "ACME")
    story.built(None, "BETA")
    assert story.looks() == both("ACME")
