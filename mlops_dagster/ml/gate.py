"""The gate: whether a challenger takes the champion's place, decided on numbers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlops_dagster.ml.evaluation import Model
from mlops_dagster.ml.recipes import TrainingSet

MIN_ROWS = 10

Outcome = Literal[
    "first",
    "better",
    "champion_unusable",
    "already_champion",
    "rolled_back_before",
    "not_better",
    "not_better_than_persistence",
    "not_a_number",
    "bad_prices",
    "leaks",
    "not_comparable",
]


@dataclass(frozen=True)
class Rules:
    """What a challenger has to fulfil.

    Parameters
    ----------
    margin : float
        By which share its mean squared error has to be smaller than the champion's; more than, not at least.
    beat_persistence : bool
        Whether its error has to be smaller than that of "the price stays as it is today".
    allow_leaks : bool
        Whether it may have learned from rows that tell the answers, as in the article's recipe.
    """

    margin: float
    beat_persistence: bool
    allow_leaks: bool


@dataclass(frozen=True)
class Measured:
    """Mean squared errors on the rows that both models are judged on, in squared units of the price.

    Parameters
    ----------
    challenger, persistence : float
        Of the challenger, and of "the price stays as it is".
    champion : float, optional
        Of the champion; None if there is none or it can't forecast.
    rows : int
        How many rows.
    first, last : str
        The days of the first and the last of them, YYYY-MM-DD.
    """

    challenger: float
    persistence: float
    champion: float | None
    rows: int
    first: str
    last: str


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why, in a sentence."""

    promote: bool
    outcome: Outcome
    reason: str


def decide(
    measured: Measured,
    rules: Rules,
    *,
    leaks: list[str],
    champion: str | None,
    champion_problem: str | None = None,
    price_problem: str | None = None,
    is_champion: bool = False,
    rolled_back: bool = False,
) -> Decision:
    """Decide whether the challenger becomes the champion.

    Parameters
    ----------
    measured : Measured
        Both models on the same rows.
    rules : Rules
        What it has to fulfil.
    leaks : list of str
        What the challenger's training set tells of the answers, see
        :func:`mlops_dagster.ml.evaluation.find_leaks`.
    champion : str or None
        The champion's version, for the reason; None if there is no champion yet.
    champion_problem : str, optional
        Why the champion can't be used any more, if so: its file is gone, damaged, or not what was registered.
    price_problem : str, optional
        How the prices break their contract, if they do.
    is_champion : bool
        Whether the challenger is the champion already.
    rolled_back : bool
        Whether the challenger was the champion before and somebody took it back.

    Returns
    -------
    Decision
        The first rule that the challenger breaks decides; comparing with the champion comes last.

    Examples
    --------
    >>> measured = Measured(challenger=99.0, persistence=100.0, champion=100.5, rows=50, first="", last="")
    >>> rules = Rules(margin=0.01, beat_persistence=True, allow_leaks=False)
    >>> decide(measured, rules, leaks=[], champion="3").reason
    "Its squared error is 1.49 % smaller than champion version 3's; it has to be more than 1 % smaller."
    >>> decide(measured, Rules(0.02, True, False), leaks=[], champion="3").promote
    False
    """
    error, reference = measured.challenger, measured.persistence
    if is_champion:
        return Decision(False, "already_champion", f"It is the champion already (version {champion}).")
    if rolled_back:
        return Decision(False, "rolled_back_before", "It was the champion before, and somebody rolled it back.")
    if price_problem is not None:
        return Decision(False, "bad_prices", f"The prices break their contract: {price_problem}")
    if leaks and not rules.allow_leaks:
        return Decision(False, "leaks", f"Its training set leaks: {leaks[0]}")
    if not math.isfinite(error):
        return Decision(False, "not_a_number", f"Its squared error is {error}, not a number to compare.")
    if rules.beat_persistence and not error < reference:
        reason = (
            f"Its squared error {error:.6g} isn't smaller than that of 'the price stays as it is', {reference:.6g}."
        )
        return Decision(False, "not_better_than_persistence", reason)
    if champion is None:
        return Decision(True, "first", "There was no champion before.")
    if champion_problem is not None:
        return Decision(True, "champion_unusable", f"Champion version {champion} can't be used: {champion_problem}")
    if measured.champion is None or not math.isfinite(measured.champion):
        reason = f"Champion version {champion}'s squared error is {measured.champion}, not a number to compare."
        return Decision(True, "champion_unusable", reason)
    gain = 1 - error / measured.champion if measured.champion > 0 else 0.0 if error == 0 else -math.inf
    by = f"more than {_percent(rules.margin)} " if rules.margin else ""
    said = (
        f"Its squared error is {_compared(gain, rules.margin)} champion version {champion}'s; it has to be {by}smaller."
    )
    return Decision(gain > rules.margin, "better" if gain > rules.margin else "not_better", said)


def _compared(gain: float, margin: float) -> str:
    """Say how much smaller an error is than another, with the digits that tell it from the margin."""
    if gain in (0, -math.inf):
        return "larger than" if gain else "the same as"
    digits = next(some for some in (3, 6, 17) if some == 17 or _percent(gain, some) != _percent(margin, some))
    return f"{_percent(abs(gain), digits)} {'smaller' if gain > 0 else 'larger'} than"


def _percent(share: float, digits: int = 3) -> str:
    return f"{100 * share:.{digits}g} %"


def days_to_judge_on(
    challenger: TrainingSet, champion: TrainingSet | None = None, champion_knows: str | None = None
) -> pd.Series[pd.Timestamp]:
    """Return the days of the challenger's test rows that neither model has learned from, in order.

    Parameters
    ----------
    challenger, champion : TrainingSet
        Of the same prices, each made by its model's own recipe.
    champion_knows : str, optional
        The last day whose price the champion learned from, YYYY-MM-DD. None if both were trained on the same training
        set, where the test rows are unseen by both.
    """
    days = challenger.rows("test")["Date"].sort_values()
    if champion is not None:
        days = days[days.isin(champion.frame.loc[champion.frame["truth"].notna(), "Date"])]
    if champion_knows is not None:
        days = days[days > pd.Timestamp(champion_knows)]
    return days


def last_day_known(data: TrainingSet) -> str:
    """Return the last day whose price a model of this training set has learned from, YYYY-MM-DD."""
    targets = data.frame["Date"].shift(-data.horizon)
    return str(targets[data.frame["split"] == "train"].max().date())


def squared_error(model: Model, data: TrainingSet, days: pd.Series[pd.Timestamp]) -> float:
    """Return the mean squared error of the price forecasts that a model makes on some days."""
    rows = data.frame[data.frame["Date"].isin(days)]
    forecast = data.to_price(model.predict(rows[list(data.features)]), rows)
    return float(np.mean((forecast - rows["truth"].to_numpy()) ** 2))


def persistence_error(data: TrainingSet, days: pd.Series[pd.Timestamp]) -> float:
    """Return the mean squared error of "the price stays as it is" on some days."""
    rows = data.frame[data.frame["Date"].isin(days)]
    return float(((rows["price"] - rows["truth"]) ** 2).mean())
