"""What columns are made from, found by changing the columns before them."""

import pytest

from mlops_dagster.ml.lineage import columns_behind, inputs_of_features, sources_of
from mlops_dagster.ml.prices import NUMBER_COLUMNS
from mlops_dagster.ml.recipes import RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_found_on_drawn_prices_holds_on_real_ones(recipe, gspc):
    found = columns_behind(RECIPES[recipe].compute, gspc, NUMBER_COLUMNS)
    assert {name: found[name] for name in RECIPES[recipe].features} == inputs_of_features(recipe)
    assert all(inputs_of_features(recipe).values())


def test_features_lead_back_to_prices():
    assert inputs_of_features("honest")["range_pct"] == ("High", "Low", "Close")
    assert inputs_of_features("article")["Pert_change"] == ("Open", "Close")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_column_of_a_training_set_has_a_source(recipe, honest, article):
    frame = {"honest": honest, "article": article}[recipe].frame
    assert list(sources_of("training_set", frame.columns, recipe)) == list(frame.columns)


def test_prices_come_from_no_table_of_ours():
    assert sources_of("prices", ["Date", "Open"]) == {}
