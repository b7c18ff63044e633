"""What a user's own grid means, and how quickly nonsense is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlops_dagster.grids import MAX_CANDIDATES, check_run, resolve_grid, resolve_search

from mlops_dagster import pipelines
from mlops_dagster.errors import ParameterError


def own(**grid):
    return resolve_grid("honest", {"grid": grid})


def test_the_articles_preset_is_the_articles_grid():
    for recipe in pipelines.RECIPES:
        search = resolve_search(recipe, {"preset": "article"})
        assert search.size == 288
        assert search.grid == {
            "bootstrap": [True],
            "max_depth": [80, 90, 100, 110],
            "max_features": [2, 3],
            "min_samples_leaf": [3, 4, 5],
            "min_samples_split": [8, 10, 12],
            "n_estimators": [100, 200, 300, 1000],
        }


@pytest.mark.parametrize("recipe", pipelines.RECIPES)
@pytest.mark.parametrize("preset", pipelines.PRESETS)
def test_every_preset_is_within_the_bounds_of_an_own_grid(preset, recipe):
    grid = resolve_grid(recipe, {"preset": preset})
    again = resolve_grid(recipe, {"grid": grid})
    assert [(name, list(map(repr, values))) for name, values in again.items()] == [
        (name, list(map(repr, values))) for name, values in grid.items()
    ]


def test_without_preset_and_grid_it_is_the_small_one():
    assert resolve_grid("honest", {}) == resolve_grid("honest", {"preset": "small"})
    assert resolve_search("honest", {}).preset == "small"
    assert resolve_search("honest", {"grid": {"max_depth": [3]}}).preset is None


def test_values_keep_their_types_and_order():
    grid = own(max_features=[2, 0.5, 1, 3.0], max_depth=[90, 80, 80], bootstrap=[True, False])
    assert list(map(repr, grid["max_features"])) == ["2", "0.5", "1.0", "3"]
    assert grid["max_depth"] == [90, 80, 80]
    assert grid["bootstrap"] == [True, False]


@pytest.mark.parametrize(
    ("name", "start", "stop", "step", "values"),
    [
        ("max_depth", 80, 110, 10, [80, 90, 100, 110]),
        ("max_depth", 80, 109, 10, [80, 90, 100]),
        ("max_depth", 5, 5, 1, [5]),
        ("max_features", 0.1, 0.5, 0.1, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("max_features", 2, 6, 2, [2, 4, 6]),
        ("max_features", 1.0, 3.0, 1.0, [1.0, 2, 3]),
    ],
)
def test_ranges_include_their_stop(name, start, stop, step, values):
    found = own(**{name: {"start": start, "stop": stop, "step": step}})[name]
    assert list(map(repr, found)) == list(map(repr, values))


@given(st.integers(1, 99), st.integers(0, 99), st.integers(1, 50))
def test_no_error_adds_up_in_a_range_of_hundredths(start, more, step):
    # Binary fractions of 0.01 aren't exact; the values are the ones that a person would write.
    stop = min(start + more, 99)
    hundredths = range(start, stop + 1, step)
    found = own(max_features={"start": start / 100, "stop": stop / 100, "step": step / 100})["max_features"]
    assert found == [float(f"{value / 100:.2f}") for value in hundredths]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"max_depth": []}, "grid.max_depth=[] (list): the list is empty"),
        ({"max_depth": 80}, "grid.max_depth=80 (int): give a list of values, [80]"),
        ({"max_depth": "80"}, "grid.max_depth='80' (str): give a list"),
        ({"max_depth": None}, "grid.max_depth=None (NoneType): give a list"),
        ({"max_depth": ["80"]}, "grid.max_depth='80' (str): give an integer from 1 to 1000"),
        ({"max_depth": [80, None]}, "grid.max_depth=None (NoneType): give an integer"),
        ({"max_depth": [80.0]}, "grid.max_depth=80.0 (float): give an integer"),
        ({"max_depth": [True]}, "grid.max_depth=True (bool): give an integer"),
        ({"max_depth": [80, 0]}, "grid.max_depth=0 (int): give an integer from 1 to 1000"),
        ({"max_depth": [[80]]}, "grid.max_depth=[80] (list)"),
        ({"max_features": [math.nan]}, "grid.max_features=nan (float)"),
        ({"max_features": [2.5]}, "max_features=2.5 (float): give a number from 0.001 to 10000, above 1 a whole one"),
        ({"bootstrap": [1]}, "grid.bootstrap=1 (int): give true or false"),
        ({"max_deph": [80]}, "grid.max_deph=[80] (list): there is no such parameter; there are max_depth"),
        ({}, "grid={} (dict): give values for at least one of max_depth"),
        ({"max_depth": {"start": 1, "stop": 9}}, "a range is {start: .., stop: .., step: ..}"),
        ({"max_depth": {"start": 1, "stop": 9, "step": 1, "x": 1}}, "exactly these three"),
        ({"max_depth": {"start": 1, "stop": 9, "step": 0}}, "grid.max_depth.step=0 (int): the range would never end"),
        ({"max_depth": {"start": 9, "stop": 1, "step": -1}}, "grid.max_depth.step=-1 (int)"),
        ({"max_depth": {"start": 9, "stop": 1, "step": 1}}, "the range ends before it starts"),
        ({"max_depth": {"start": 1.0, "stop": 9, "step": 1}}, "grid.max_depth.start=1.0 (float): give an integer"),
        ({"max_depth": {"start": 1, "stop": 10**12, "step": 1}}, "grid.max_depth.stop=1000000000000 (int)"),
        ({"max_features": {"start": 0.1, "stop": math.inf, "step": 0.1}}, "grid.max_features.stop=inf (float)"),
        ({"max_features": {"start": 0.1, "stop": 0.5, "step": math.nan}}, "grid.max_features.step=nan (float)"),
        ({"bootstrap": {"start": 0, "stop": 1, "step": 1}}, "only numbers have ranges"),
    ],
)
def test_what_cannot_be_searched_is_refused(grid, said):
    with pytest.raises(ParameterError) as raised:
        resolve_search("honest", {"grid": grid})
    assert said in str(raised.value)


@pytest.mark.parametrize("grid", [[], "max_depth=3", 7, [("max_depth", [3])]])
def test_a_grid_is_a_mapping(grid):
    with pytest.raises(ParameterError, match=r"grid=.*give parameters with the values to try"):
        resolve_search("honest", {"grid": grid})


def test_too_many_candidates_are_counted_and_not_enumerated():
    # 10 million, and a range of 10^12 values: enumerating either would take minutes or all memory.
    ten = list(range(1, 11))
    seven = dict.fromkeys(("max_depth", "n_estimators", "min_samples_leaf"), ten)
    with pytest.raises(ParameterError, match=r"10,000,000 candidates; at most 100,000 can be searched"):
        own(
            **seven,
            min_samples_split=list(range(2, 12)),
            max_features=list(range(2, 12)),
            random_state=list(range(100)),
        )
    with pytest.raises(ParameterError, match=r"999,000,000,001 max_features = 999,000,000,001 candidates"):
        own(max_features={"start": 0.001, "stop": 1.0, "step": 1e-12})
    assert MAX_CANDIDATES == 100_000
    assert len(own(random_state={"start": 0, "stop": 99_999, "step": 1})["random_state"]) == 100_000


def test_contradictions_are_refused():
    for parameters, said in [
        ({"preset": "small", "grid": {"max_depth": [3]}}, "preset='small' .*give one of them"),
        ({"cv": "shuffled", "gap": 3}, "gap=3 .*shuffled rows have no gap"),
        ({"grid": {"random_state": [1, 2]}, "random_state": 3}, "random_state=3 .*give it once"),
        ({"folds": 1}, r"folds=1 \(int\): give an integer from 2 to 50"),
        ({"scoring": "rmse"}, "scoring='rmse' .*neg_root_mean_squared_error"),
        ({"candidates": "five"}, "candidates='five' .*table, children"),
        ({"presett": "small"}, "there is no such parameter"),
    ]:
        with pytest.raises(ParameterError, match=said):
            resolve_search("honest", parameters)
    with pytest.raises(ParameterError, match="gap=3"):
        resolve_search("article", {"gap": 3})


def test_a_run_is_checked_whole():
    assert check_run(pipelines.SEARCH_MODEL, {"recipe": "article", "gap": None, "preset": "small"}) == {
        "prices": {},
        "training_set": {"recipe": "article"},
        "grid_search_results": {"preset": "small"},
    }
    for parameters, said in [
        ({"recipe": "article", "gap": 3}, "gap=3 .*shuffled rows have no gap"),
        ({"recipe": "best"}, "recipe='best' .*one of honest, article"),
        ({"margin": 0.1}, "margin=0.1 .*search_model_pipeline has no such parameter; there are source, path"),
    ]:
        with pytest.raises(ParameterError, match=said):
            check_run(pipelines.SEARCH_MODEL, parameters)


def test_the_recipe_decides_how_candidates_are_scored_and_what_is_fixed():
    honest, article = (resolve_search(recipe, {"grid": {"max_depth": [3]}}) for recipe in ("honest", "article"))
    assert (honest.cv, article.cv) == ("chronological", "shuffled")
    assert honest.forest == {n: v for n, v in pipelines.RECIPE_DEFAULTS["honest"].items() if n != "max_depth"}
    assert resolve_search("honest", {"random_state": 7}).forest["random_state"] == 7
