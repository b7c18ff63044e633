"""What a user's own grid means, and how quickly nonsense is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.search import grid_of
from mlops_dagster.spec.grids import MAX_CANDIDATES, check_grid
from mlops_dagster.spec.parameters import Parameter
from mlops_dagster.spec.project import find_model
from mlops_dagster.steps.checking import resolve
from mlops_dagster_tests.contracts.article import ARTICLE
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.contracts.stock import OWN

MODEL = find_model("stock_price", OWN)


def own(**grid):
    return resolve(MODEL, "grid_search_results", {"grid": grid})["grid"]


@pytest.mark.parametrize("name", ["stock_price", "article"])
def test_presets_are_within_the_bounds_of_an_own_grid(name):
    model = shipped(name)
    assert grid_of(model, "article") == ARTICLE
    for preset in model.search.presets:
        grid = grid_of(model, preset)
        assert repr(grid_of(model, grid=grid)) == repr(grid)
    assert resolve(model, "grid_search_results", {})["grid"] == grid_of(model, "small")
    assert "preset" not in resolve(model, "grid_search_results", {"grid": {"max_depth": [3]}})


def test_values_keep_their_types_and_order():
    grid = own(max_features=[2, 0.5, 1, 3], max_depth=[90, 80, 80], bootstrap=[True, False])
    assert list(map(repr, grid["max_features"])) == ["2", "0.5", "1", "3"]
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
    share = Parameter("share", "number", "")
    found = check_grid({"share": {"start": start / 100, "stop": stop / 100, "step": step / 100}}, {"share": share})
    assert found["share"] == [float(f"{value / 100:.2f}") for value in hundredths]


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
        # 10 million, and a range of 10^12 values: enumerating either would take minutes or all memory.
        (
            {
                **{name: list(range(1, 11)) for name in ("max_depth", "n_estimators", "min_samples_leaf")},
                **{name: list(range(2, 12)) for name in ("min_samples_split", "max_features")},
                "random_state": list(range(100)),
            },
            "10,000,000 candidates; at most 100,000 can be searched",
        ),
        ({"max_features": {"start": 0.001, "stop": 1.0, "step": 1e-12}}, "max_features = 999,000,000,001 candidates"),
    ],
)
def test_what_cannot_be_searched_is_refused(grid, said):
    with pytest.raises(ParameterError) as raised:
        own(**grid)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *[({"grid": grid}, r"grid=.*give parameters with the values to try") for grid in ([], "max_depth=3", 7)],
        ({"preset": "small", "grid": {"max_depth": [3]}}, "preset='small' .*give a preset or a grid, not both"),
        ({"folds": 1}, r"folds=1 \(int\): give an integer from 2 to 50"),
        ({"scoring": "rmse"}, r"scoring='rmse' \(str\): there is no such score; .*neg_root_mean_squared_error"),
        ({"scoring": "roc_auc"}, r"scoring='roc_auc' \(str\): it is no score of a regression"),
        ({"candidates": "five"}, "candidates='five' .*table, children"),
        ({"presett": "small"}, "there is no such parameter"),
    ],
)
def test_a_wrong_search_is_refused(given, said):
    with pytest.raises(ParameterError, match=said):
        resolve(MODEL, "grid_search_results", given)
    assert len(own(random_state={"start": 0, "stop": 99_999, "step": 1})["random_state"]) == MAX_CANDIDATES
