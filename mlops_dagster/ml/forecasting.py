"""Forecasts of the days whose price isn't known yet, each with an interval that says how sure it is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import MlopsError
from mlops_dagster.ml.recipes import TrainingSet

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

Floats = npt.NDArray[np.float64]
_CELLS = 2_000_000
"""How many weights (rows asked for x rows learned from) are held at once: 16 MB."""


class ForecastError(MlopsError):
    """The champion can't forecast from these prices; the message says why, and the cure."""


def leaf_quantiles(
    model: RandomForestRegressor,
    learned: pd.DataFrame,
    targets: npt.ArrayLike,
    asked: pd.DataFrame,
    levels: list[float],
) -> Floats:
    """Return quantiles of what a forest has learned about some rows: a quantile regression forest.

    A forest's forecast is a weighted mean of the targets that it learned. The weights, of how alike a learned row and
    the row asked for are, give the whole distribution and not only its mean: each tree gives each learned row in the
    leaf that the row asked for falls into the same share of one, and all trees weigh the same. After N. Meinshausen,
    "Quantile Regression Forests", Journal of Machine Learning Research 7 (2006), 983-999; all learned rows count, not
    only those in a tree's bootstrap sample.

    Parameters
    ----------
    model : RandomForestRegressor
        Fitted.
    learned : DataFrame, shape (rows learned from, features)
        What it learned from.
    targets : array-like, shape (rows learned from,)
        Their targets.
    asked : DataFrame, shape (rows asked for, features)
        What to say the quantiles of.
    levels : list of float
        Which quantiles, from 0 to 1.

    Returns
    -------
    ndarray, shape (rows asked for, levels)
        Each the smallest target such that the weights of it and all smaller ones sum up to the level. NaN where no tree
        has any of the learned rows in the row's leaf.
    """
    values = np.asarray(targets, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    values = values[order]
    # What trees compare: scikit-learn turns every input into this before it predicts.
    known, wanted = (np.ascontiguousarray(frame.to_numpy(), dtype=np.float32) for frame in (learned, asked))
    known = known[order]
    quantiles = np.full((len(wanted), len(levels)), np.nan)
    at_once = max(1, _CELLS // max(1, len(values)))
    for first in range(0, len(wanted), at_once):
        part = wanted[first : first + at_once]
        weights = np.zeros((len(part), len(values)))
        for estimator in model.estimators_:
            tree = estimator.tree_
            leaves, its_leaves = tree.apply(known), tree.apply(part)
            sizes = np.bincount(leaves, minlength=tree.node_count)[its_leaves]
            shares = np.divide(1.0, sizes, out=np.zeros(len(part)), where=sizes > 0)
            weights += (leaves[None, :] == its_leaves[:, None]) * shares[:, None]
        sums = np.cumsum(weights, axis=1)
        found = sums[:, -1] > 0
        for place, level in enumerate(levels):
            # Sums of shares such as 1/3 miss a level by a rounding error now and then.
            reached = sums >= (level - 1e-9) * sums[:, -1:]
            quantiles[first : first + at_once, place] = np.where(found, values[reached.argmax(axis=1)], np.nan)
    return quantiles


def make_forecasts(
    model: RandomForestRegressor, data: TrainingSet, rows: pd.DataFrame, *, knows_until: str, interval: float
) -> pd.DataFrame:
    """Forecast some rows of a training set.

    Parameters
    ----------
    model : RandomForestRegressor
        Fitted; asks for the training set's features.
    data : TrainingSet
        Of today's prices, made by the model's own recipe.
    knows_until : str
        The last day whose price the model has learned from, YYYY-MM-DD. Intervals come from the rows up to then.
    interval : float
        The share of prices that an interval is meant to hold, for example 0.9.

    Returns
    -------
    DataFrame
        Date, horizon, price, forecast, lower and upper (quantiles of what the forest learned, see
        :func:`leaf_quantiles`), interval, trees_lower and trees_upper (the same quantiles of the single trees'
        forecasts), expected_rmse (see :func:`relative_rmse`) and inputs_digest, in the order of `rows`.

    Raises
    ------
    ForecastError
        If today's prices have none of the rows that the model has learned from, or if a forecast isn't a number.
    """
    features = list(data.features)
    learned = rows_learned_from(data, knows_until)
    if learned.empty:
        raise ForecastError(
            f"the champion has learned from prices up to {knows_until}, and today's begin with "
            f"{data.frame['Date'].iloc[0]:%Y-%m-%d}: there is nothing to take an interval from. Give the earlier "
            "prices too, or train again."
        )
    levels = [(1 - interval) / 2, (1 + interval) / 2]
    asked = rows[features]
    inputs = np.ascontiguousarray(asked.to_numpy(), dtype=np.float32)
    single = np.stack([estimator.tree_.predict(inputs)[:, 0] for estimator in model.estimators_])
    limits = {
        "": leaf_quantiles(model, learned[features], learned["target"], asked, levels),
        "trees_": np.quantile(single, levels, axis=0).T,
    }
    made = pd.DataFrame(
        {
            "Date": rows["Date"].to_numpy(),
            "horizon": data.horizon,
            "price": rows["price"].to_numpy(),
            "forecast": data.to_price(model.predict(asked), rows),
            **{
                f"{prefix}{name}": data.to_price(values[:, place], rows)
                for prefix, values in limits.items()
                for place, name in enumerate(("lower", "upper"))
            },
            "interval": float(interval),
            "expected_rmse": relative_rmse(model, data, knows_until),
            "inputs_digest": [_digest(row) for row in rows[["price", *features]].to_numpy(dtype=np.float64)],
        }
    )
    numbers = made[["forecast", "lower", "upper", "trees_lower", "trees_upper"]]
    if not np.isfinite(numbers.to_numpy()).all():
        name = next(name for name in numbers if not np.isfinite(numbers[name]).all())
        day = made.loc[~np.isfinite(numbers[name]), "Date"].iloc[0]
        raise ForecastError(
            f"the champion's {name} for {day:%Y-%m-%d} isn't a number: check the prices, or train again."
        )
    return made


def rows_learned_from(data: TrainingSet, knows_until: str) -> pd.DataFrame:
    """Return the rows whose truth a model knew that has learned from prices up to a day.

    Of a shuffled split these are its test rows, too: a training set that is made again draws others.
    """
    when = data.frame["Date"].shift(-data.horizon)
    return data.frame[when <= pd.Timestamp(knows_until)]


def relative_rmse(model: RandomForestRegressor, data: TrainingSet, knows_until: str) -> float:
    """Return the root mean squared error, relative to the price, on all days that the model hasn't learned from.

    NaN if there is no such day whose truth is known, as right after a training on a shuffled split.
    """
    rows = data.frame[(data.frame["Date"] > pd.Timestamp(knows_until)) & data.frame["truth"].notna()]
    if rows.empty:
        return float("nan")
    forecast = data.to_price(model.predict(rows[list(data.features)]), rows)
    return float(np.mean(((forecast - rows["truth"]) / rows["price"]) ** 2) ** 0.5)


def _digest(values: Floats) -> str:
    # One layout whatever the machine's byte order; 16 digits tell the few forecasts of a day apart.
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).hexdigest()[:16]
