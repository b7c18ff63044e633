"""What a training set holds, row by row, and that it survives being stored."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from mlops_dagster import pipelines
from mlops_dagster.errors import ParameterError
from mlops_dagster.ml.features import honest_features
from mlops_dagster.ml.recipes import RECIPES, TrainingSet, make_training_set
from mlops_dagster.modeling.splits import Split


def test_the_recipes_are_those_that_users_are_offered():
    assert tuple(RECIPES) == pipelines.RECIPES
    assert all(name == recipe.name for name, recipe in RECIPES.items())


def test_the_articles_numbers_of_rows(article):
    assert (article.horizon, article.test_size) == (51, 0.33)
    assert article.frame["split"].value_counts().to_dict() == {"train": 3336, "test": 1644, "forecast": 51}
    assert len(article.frame) == 5031


def test_the_articles_rows_are_seen_in_their_shuffled_order(article):
    from sklearn.model_selection import train_test_split

    rows = article.frame.iloc[:-51]
    X_train, X_test, y_train, y_test = train_test_split(
        rows[list(article.features)], rows["truth"], test_size=0.33, random_state=42
    )
    pd.testing.assert_frame_equal(article.X_train, X_train, check_exact=True)
    pd.testing.assert_frame_equal(article.X_test, X_test, check_exact=True)
    pd.testing.assert_series_equal(article.y_train, y_train, check_exact=True, check_names=False)
    pd.testing.assert_series_equal(article.y_test, y_test, check_exact=True, check_names=False)


def test_the_honest_sets_numbers_of_rows(honest):
    # 5,031 rows less 20 to look back on; the last one's truth isn't known yet. ceil(0.33 * 5010) = 1654.
    assert (honest.horizon, honest.test_size) == (1, 0.33)
    assert honest.frame["split"].value_counts().to_dict() == {"train": 3355, "gap": 1, "test": 1654, "forecast": 1}


@pytest.mark.parametrize(("recipe", "horizon"), [("honest", 1), ("honest", 20), ("article", 7)])
def test_every_row_says_what_was_known_and_what_came(recipe, horizon, gspc):
    made = make_training_set(gspc, recipe=recipe, horizon=horizon)
    prices = gspc.set_index("Date")["AdjClose"]
    for date, price, truth, target in (
        made.frame[["Date", "price", "truth", "target"]].iloc[::501].itertuples(index=False)
    ):
        place = prices.index.get_loc(date)
        assert price == prices.iloc[place]
        if place + horizon < len(prices):
            assert truth == prices.iloc[place + horizon]
            assert target == (truth if recipe == "article" else truth / price - 1)
    unknown = made.frame["truth"].isna()
    assert unknown.sum() == horizon
    assert unknown.tail(horizon).all()
    assert made.frame["target"].isna().equals(unknown)
    assert (made.frame["split"] == "forecast").equals(unknown)
    assert not made.frame[list(made.features)].isna().any(axis=None)


@pytest.mark.parametrize("horizon", [1, 5, 60])
def test_the_honest_split_is_chronological_and_its_gap_one_horizon(horizon, gspc):
    made = make_training_set(gspc, horizon=horizon)
    runs = made.frame["split"].ne(made.frame["split"].shift()).cumsum()
    assert [rows["split"].iloc[0] for _, rows in made.frame.groupby(runs)] == ["train", "gap", "test", "forecast"]
    assert (made.frame["split"] == "gap").sum() == horizon
    # What the last training row was to forecast had happened before the first test day.
    assert made.rows("train")["truth"].iloc[-1] == made.rows("gap")["price"].iloc[-1]


def test_the_honest_target_is_what_is_added_to_the_price(honest):
    rows = honest.rows("test")
    np.testing.assert_allclose(honest.to_price(rows["target"], rows), rows["truth"], rtol=1e-14)


def test_the_features_are_those_of_the_day(honest, gspc):
    expected = honest_features(gspc).iloc[20:].reset_index(drop=True)
    pd.testing.assert_frame_equal(honest.frame[list(honest.features)], expected, check_exact=True)


def test_positions_count_each_split_from_zero(article, honest):
    for made in (article, honest):
        for _, rows in made.frame.groupby("split"):
            assert sorted(rows["position"]) == list(range(len(rows)))


def test_prices_are_not_changed(gspc):
    before = gspc.copy()
    make_training_set(gspc, recipe="article")
    make_training_set(gspc)
    pd.testing.assert_frame_equal(gspc, before)


def test_a_year_of_prices_is_enough(gspc):
    for recipe in RECIPES:
        made = make_training_set(gspc.tail(250).reset_index(drop=True), recipe=recipe)
        assert len(made.X_train) >= 50


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"recipe": "honset"}, "recipe"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": -1}, "horizon"),
        ({"horizon": 1.0}, "horizon"),
        ({"horizon": True}, "horizon"),
        ({"test_size": 0}, "test_size"),
        ({"test_size": 1.0}, "test_size"),
        ({"test_size": "0.3"}, "test_size"),
        ({"test_size": float("nan")}, "test_size"),
    ],
)
def test_bad_parameters_are_named(given, name, gspc):
    with pytest.raises(ParameterError, match=f"^{name}="):
        make_training_set(gspc, **given)


@pytest.mark.parametrize(("rows", "horizon"), [(250, 250), (250, 170), (300, 240), (260, 229)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_horizon_that_leaves_too_few_rows_is_refused(rows, horizon, recipe, gspc):
    with pytest.raises(ParameterError, match=r"horizon=.*too few are left.*give a smaller horizon"):
        make_training_set(gspc.head(rows), recipe=recipe, horizon=horizon, test_size=0.5)


def test_split_otherwise_keeps_the_rows_and_the_unknown(honest):
    other = honest.with_split(Split(np.array([5, 3, 4]), np.array([9, 8])))
    assert other.frame["split"].value_counts().to_dict() == {"gap": 5005, "train": 3, "test": 2, "forecast": 1}
    assert other.rows("train").index.tolist() == [5, 3, 4]
    assert other.rows("test").index.tolist() == [9, 8]
    assert honest.frame["split"].iloc[3] == "train"
    pd.testing.assert_frame_equal(
        other.frame.drop(columns=["split", "position"]), honest.frame.drop(columns=["split", "position"])
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_set_survives_its_table(recipe, gspc, tmp_path):
    made = make_training_set(gspc, recipe=recipe, test_size=0.1)
    made.frame.to_parquet(tmp_path / "table.parquet")
    again = TrainingSet.from_table(pd.read_parquet(tmp_path / "table.parquet"), made.metadata())
    pd.testing.assert_frame_equal(again.frame, made.frame, check_exact=True)
    for field in dataclasses.fields(made):
        if field.name != "frame":
            assert getattr(again, field.name) == getattr(made, field.name)
    assert all(isinstance(value, str) for value in made.metadata().values())


def test_a_table_that_is_no_training_set_is_refused(honest, gspc):
    with pytest.raises(ValueError, match=r"lacks \['horizon'\]"):
        TrainingSet.from_table(honest.frame, {k: v for k, v in honest.metadata().items() if k != "horizon"})
    with pytest.raises(ValueError, match=r"lacks the columns .*'target'"):
        TrainingSet.from_table(gspc, honest.metadata())
