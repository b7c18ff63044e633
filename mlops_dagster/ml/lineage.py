"""Which columns each column of our tables is made from.

The features' inputs are found by changing columns and looking what moves, so a new feature needs no line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from mlops_dagster.ml.prices import NUMBER_COLUMNS
from mlops_dagster.ml.recipes import RECIPES

Sources = Mapping[str, Sequence[tuple[str, str]]]
"""Column -> the (table, column) pairs that it is made from."""

_DAYS = 250


def columns_behind(
    function: Callable[[pd.DataFrame], pd.DataFrame], frame: pd.DataFrame, columns: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Find, for each column that `function` makes, those columns of `frame` whose change changes it.

    Parameters
    ----------
    function : callable
        From a frame to another one of the same rows.
    columns : iterable of str
        The columns to change, one at a time: numbers.

    Returns
    -------
    dict of str to tuple of str
        In the order of `columns`.

    Examples
    --------
    >>> prices = pd.DataFrame({"High": [3.0, 4.0], "Low": [1.0, 2.0], "Volume": [5.0, 6.0]})
    >>> columns_behind(lambda prices: pd.DataFrame({"range": prices["High"] - prices["Low"]}), prices, prices.columns)
    {'range': ('High', 'Low')}
    """
    before = function(frame)
    moved: dict[str, tuple[str, ...]] = dict.fromkeys(before.columns, ())
    factors = np.random.default_rng(0).uniform(1.1, 2.0, len(frame))  # another one each row, or ratios wouldn't move
    for column in columns:
        after = function(frame.assign(**{column: frame[column] * factors}))
        for name in moved:
            if not after[name].equals(before[name]):
                moved[name] += (column,)
    return moved


@cache
def inputs_of_features(recipe: str) -> Mapping[str, tuple[str, ...]]:
    """Return which price columns each feature of a recipe is computed from."""
    draws = np.random.default_rng(0)
    prices = pd.DataFrame({column: draws.uniform(50.0, 100.0, _DAYS) for column in NUMBER_COLUMNS})
    behind = columns_behind(RECIPES[recipe].compute, prices, NUMBER_COLUMNS)
    return {feature: behind[feature] for feature in RECIPES[recipe].features}


def sources_of(table: str, columns: Iterable[str], recipe: str | None = None) -> Sources:
    """Return what the columns of one of our tables are made from.

    Parameters
    ----------
    recipe : str, optional
        The recipe of its training set. Not given: the features of all recipes are taken.

    Returns
    -------
    mapping of str to sequence of (table, column)
        Without columns that come from no table, such as the time of a decision.
    """
    rules = {
        "training_set": _training_set,
        "trained_model": _trained_model,
        "champion_model": _champion_model,
        "price_forecast": _price_forecast,
        "forecast_quality": _forecast_quality,
        "grid_search_results": _search,
        "spark_grid_search_results": _search,
    }
    if table not in rules:
        return {}
    recipes = [recipe] if recipe else list(RECIPES)
    features = {name: inputs for one in recipes for name, inputs in inputs_of_features(one).items()}
    there = list(columns)
    found = rules[table](there, features)
    return {column: found[column] for column in there if found.get(column)}


_Features = Mapping[str, tuple[str, ...]]


def _of(table: str, *columns: str) -> list[tuple[str, str]]:
    return [(table, column) for column in columns]


def _read_prices(features: _Features) -> list[tuple[str, str]]:
    read = {column for inputs in features.values() for column in inputs} | {"AdjClose"}
    return _of("prices", *(column for column in NUMBER_COLUMNS if column in read))


def _training_set(columns: list[str], features: _Features) -> dict[str, list[tuple[str, str]]]:
    made = {name: _of("prices", *inputs) for name, inputs in features.items()}
    made |= {name: _of("prices", "AdjClose") for name in ("price", "truth", "target")}
    return {**made, **{name: _of("prices", "Date") for name in ("Date", "split", "position")}}


def _trained_model(columns: list[str], features: _Features) -> dict[str, list[tuple[str, str]]]:
    made = {name: _of("training_set", name) for name in ("Date", "price", "truth")}
    forecast = _of("training_set", *features, "price", "target", "split")
    return {**made, "TargetDate": _of("training_set", "Date"), "forecast": forecast}


def _champion_model(columns: list[str], features: _Features) -> dict[str, list[tuple[str, str]]]:
    made = {name: _of("trained_model", "Date") for name in ("rows", "first_day", "last_day")}
    return {
        **made,
        "challenger_error": _of("trained_model", "forecast", "truth"),
        # The champion forecasts again, from today's prices and by its own recipe.
        "champion_error": [*_read_prices(features), *_of("trained_model", "truth")],
        "persistence_error": _of("trained_model", "price", "truth"),
    }


def _price_forecast(columns: list[str], features: _Features) -> dict[str, list[tuple[str, str]]]:
    from_prices = _read_prices(features)
    forest = _of("champion_model", "champion")
    made = dict.fromkeys(("forecast", "lower", "upper", "trees_lower", "trees_upper"), from_prices + forest)
    return {
        **made,
        **{name: _of("prices", "Date") for name in ("Date", "TargetDate", "late")},
        "price": _of("prices", "AdjClose"),
        "expected_rmse": _of("prices", "AdjClose") + forest,
        "inputs_digest": from_prices,
        "horizon": forest,
        "model_version": forest,
        "model_digest": _of("champion_model", "model_digest"),
    }


def _forecast_quality(columns: list[str], features: _Features) -> dict[str, list[tuple[str, str]]]:
    kept = {name: _of("price_forecast", name) for name in columns}
    truth = [*_of("price_forecast", "Date", "horizon", "price"), *_of("prices", "Date", "AdjClose")]
    return {
        **kept,
        "TruthDate": [*_of("price_forecast", "Date", "horizon"), *_of("prices", "Date")],
        "truth": truth,
        "error": _of("price_forecast", "forecast") + truth,
        "squared_error": _of("price_forecast", "forecast") + truth,
        "persistence_squared_error": truth,
        "inside": _of("price_forecast", "lower", "upper") + truth,
    }


def _search(columns: list[str], features: _Features) -> dict[str, list[tuple[str, str]]]:
    scored = _of("training_set", *features, "target", "split")
    return {name: scored for name in columns if name.endswith("_test_score")}
