"""How good a model is, and whether its training set told it the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.ml.recipes import TrainingSet


class Model(Protocol):
    """What can be evaluated: anything that predicts."""

    def predict(self, X: pd.DataFrame) -> Any:
        """Predict one target per row."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's forecasts on the test rows and what they are worth.

    Parameters
    ----------
    metrics : dict of str to float
        All on the price, in its unit where they have one:

        - rmse, mae, r2
        - rmse_persistence, r2_persistence: those of "the price stays as it is today"
        - rmse_training_mean: that of always forecasting the mean of the training rows' target
        - skill_vs_persistence, skill_vs_training_mean: 1 - mse / mse of the reference; above 0 is better than it
        - train_rows, test_rows
    forecasts : pandas.DataFrame
        The test rows, in chronological order: Date (when the forecast is made), TargetDate (for when), price (on
        Date), forecast and truth (on TargetDate).
    history : pandas.DataFrame
        Date, price and split of all rows of the training set, in chronological order.
    horizon : int
        From Date to TargetDate, in trading days.
    """

    metrics: dict[str, float]
    forecasts: pd.DataFrame
    history: pd.DataFrame
    recipe: str
    horizon: int


def evaluate(model: Model, training_set: TrainingSet) -> Evaluation:
    """Forecast the test rows and measure the forecasts against the truth and against references."""
    from sklearn.metrics import r2_score

    frame = training_set.frame
    rows = training_set.rows("test").sort_values("Date", kind="stable")
    truth, today = rows["truth"].to_numpy(), rows["price"].to_numpy()
    y_train = training_set.y_train
    forecast = training_set.to_price(model.predict(rows[list(training_set.features)]), rows)
    mean_forecast = training_set.to_price(np.full(len(rows), y_train.mean()), rows)

    mse, mse_today, mse_mean = (_mse(truth, guess) for guess in (forecast, today, mean_forecast))
    metrics = {
        "rmse": mse**0.5,
        "mae": float(np.abs(forecast - truth).mean()),
        "r2": float(r2_score(truth, forecast)),
        "rmse_persistence": mse_today**0.5,
        "r2_persistence": float(r2_score(truth, today)),
        "rmse_training_mean": mse_mean**0.5,
        "skill_vs_persistence": _skill(mse, mse_today),
        "skill_vs_training_mean": _skill(mse, mse_mean),
        "train_rows": float(len(y_train)),
        "test_rows": float(len(rows)),
    }
    forecasts = pd.DataFrame(
        {
            "Date": rows["Date"],
            "TargetDate": frame["Date"].shift(-training_set.horizon).loc[rows.index],
            "price": today,
            "forecast": forecast,
            "truth": truth,
        }
    ).reset_index(drop=True)
    history = frame[["Date", "price", "split"]].copy()
    return Evaluation(metrics, forecasts, history, training_set.recipe, training_set.horizon)


def _mse(truth: npt.NDArray[np.float64], guess: npt.NDArray[np.float64]) -> float:
    return float(((guess - truth) ** 2).mean())


def _skill(mse: float, reference: float) -> float:
    # Where the reference makes no error there is nothing to save; infinity would only break what reads metrics.
    return 1.0 - mse / reference if reference > 0 else 0.0


def find_leaks(training_set: TrainingSet) -> list[str]:
    """Find what a training set tells of the test rows' answers.

    Parameters
    ----------
    training_set : TrainingSet
        Only its table is looked at, not how it was made.

    Returns
    -------
    list of str
        One sentence per kind of leak, with the cure; empty if none was found. Found are: a truth that isn't the price
        one horizon later, training rows within or after the test period or one horizon before it, features scaled
        over all rows, and features that (almost) are the answer.
    """
    frame, horizon = training_set.frame, training_set.horizon
    expected = frame["price"].shift(-horizon)
    if not expected.equals(frame["truth"].astype(float)):
        # Nothing that follows could be judged: it relies on where the truth lies.
        return [f"truth isn't the price {horizon} rows later: one of truth, horizon and the order of rows is wrong."]

    leaks = []
    train, test = frame[frame["split"] == "train"], frame[frame["split"] == "test"]
    begin = test["Date"].min()
    truth_dates = frame["Date"].shift(-horizon).loc[train.index]
    inside, ahead = train["Date"] >= begin, truth_dates >= begin
    cure = f"split chronologically with a gap of at least {horizon} rows."
    if inside.any():
        leaks.append(
            f"{inside.sum():,} of {len(train):,} training rows lie at or after the first test day, {begin:%Y-%m-%d}: "
            f"the model was trained on the future of what it is tested on; {cure}"
        )
    early = train[ahead & ~inside]
    if not early.empty:
        first = early.index[0]
        leaks.append(
            f"{len(early):,} training rows before the first test day, {begin:%Y-%m-%d}, have their truth on or after "
            f"it: the row of {early['Date'].iloc[0]:%Y-%m-%d} has the price of {truth_dates[first]:%Y-%m-%d}; {cure}"
        )

    features = frame[list(training_set.features)]
    scaled = [
        name
        for name, column in features.items()
        if np.isclose(column.mean(), 0, atol=1e-6) and np.isclose(column.std(ddof=0), 1, rtol=1e-6)
    ]
    if scaled:
        leaks.append(
            f"{', '.join(map(str, scaled))}: mean 0 and deviation 1 over all rows, so the scaling has seen the test "
            "rows; fit it on the training rows, or leave it out: trees need none."
        )
    answers = [str(name) for name, column in features.items() if _tells(column, frame, horizon)]
    if answers:
        leaks.append(f"{', '.join(answers)}: moves with the price that is to be forecast; use what is known on Date.")
    return leaks


def _tells(feature: pd.Series[float], frame: pd.DataFrame, horizon: int) -> bool:
    """Whether a feature, or its change, is (almost) a straight line of the coming change of the price."""
    coming = frame["truth"] - frame["price"]
    answers = (coming, coming / frame["price"])
    guesses = (feature, feature.diff(horizon))
    pairs = ((guess, answer) for guess in guesses for answer in answers)
    return any(_correlation(guess, answer) > 0.9 for guess, answer in pairs)


def _correlation(a: pd.Series[float], b: pd.Series[float]) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return 0.0
    return abs(float(np.corrcoef(a, b)[0, 1]))
