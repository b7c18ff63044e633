"""Forecasts of the days whose price isn't known yet, each with an interval that says how sure it is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import MlopsError
from mlops_dagster.ml.recipes import TrainingSet
from mlops_dagster.modeling.leaf_quantiles import leaf_quantiles

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

Floats = npt.NDArray[np.float64]


class ForecastError(MlopsError):
    """The champion can't forecast from these prices; the message says why, and the cure."""


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
