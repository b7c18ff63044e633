"""Whether a symbol's forecasts are as they should be: questions, and how they are answered from its tables.

What belongs here: finding the numbers, and saying them. What doesn't: the numbers themselves (`ml/drift.py`,
`modeling/drift.py`), and who asks: Dagster's checks (`checks/forecast.py`), and the state of things (`state.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster.steps.champion import TABLE, champion_in
from mlops_dagster.steps.price_models import by_its_recipe

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.stack.registry import Registry
    from mlops_dagster.steps.inputs import Inputs


@dataclass(frozen=True)
class Finding:
    """An answer.

    Parameters
    ----------
    good : bool or None
        None if there is nothing to judge yet.
    said : str
        Why, in a sentence.
    numbers : dict
        What it was judged by.
    """

    good: bool | None
    said: str
    numbers: dict[str, Any] = field(default_factory=dict)


def forecast_is_fresh(tables: Inputs, registry: Registry) -> Finding:
    """The newest forecast was made from the newest price."""
    (forecasts, _), (prices, _) = tables.read("price_forecast"), tables.read("prices")
    made, newest = forecasts["Date"].max(), prices["Date"].iloc[-1]
    late = int((prices["Date"] > made).sum())
    behind = f": {late} day{'s' if late != 1 else ''} behind; run forecast_pipeline." if late else "."
    return Finding(
        bool(made == newest),
        f"The newest forecast is from {made:%Y-%m-%d}, the newest price of {newest:%Y-%m-%d}{behind}",
        {"days_behind": late, "forecast_from": f"{made:%Y-%m-%d}", "newest_price": f"{newest:%Y-%m-%d}"},
    )


def features_have_not_drifted(tables: Inputs, registry: Registry) -> Finding:
    """At least half of each feature's values of the last month lie in the range that the champion learned from."""
    from mlops_dagster.ml.drift import RECENT_ROWS
    from mlops_dagster.ml.forecasting import rows_learned_from
    from mlops_dagster.modeling.drift import share_outside

    champion = champion_in(tables.newest(TABLE))
    if champion is None:
        return Finding(None, f"there is no champion of {tables.symbol} to compare with.")
    registered = registry.get(tables.symbol, *champion)
    prices, _ = tables.read("prices")
    data, knows_until = by_its_recipe(registered, prices), registered.tags["knows_until"]
    learned = rows_learned_from(data, knows_until)
    if learned.empty:
        said = f"Today's prices have none of the rows up to {knows_until} that the champion learned from."
        return Finding(False, said)
    features = list(data.features)
    shares = share_outside(learned[features], data.frame[features].tail(RECENT_ROWS))
    return judge_drift(shares, RECENT_ROWS)


def forecast_error_has_not_drifted(tables: Inputs, registry: Registry) -> Finding:
    """The rmse of the last month is at most 1.5 times the champion's on rows that it hasn't learned from."""
    from mlops_dagster.ml.drift import MOST_ERROR, RECENT_ROWS, error_drift
    from mlops_dagster.ml.forecast_quality import of_newest_horizon

    scored, _ = tables.read("forecast_quality")
    drift = error_drift(of_newest_horizon(scored))
    if drift.days < RECENT_ROWS:
        return _too_few(drift.days, RECENT_ROWS)
    if not drift.expected > 0:
        return Finding(None, "the champion has learned from all days, so there is no error to expect.")
    return Finding(
        drift.ratio <= MOST_ERROR,
        f"The rmse of the last {drift.days} scored days is {drift.recent:.3%} of the price, {drift.ratio:.2f} times "
        f"the champion's {drift.expected:.3%} on rows unseen in training; up to {MOST_ERROR} times pass.",
        {
            "recent_rmse_of_price": drift.recent,
            "expected_rmse_of_price": drift.expected,
            "times": drift.ratio,
            "days": drift.days,
        },
    )


def interval_covers_the_truth(tables: Inputs, registry: Registry) -> Finding:
    """The last quarter's prices lie inside their interval as often as was meant, or chance explains the difference."""
    from mlops_dagster.ml.forecast_quality import of_newest_horizon

    return judge_intervals(of_newest_horizon(tables.read("forecast_quality")[0]), "days")


def judge_intervals(scored: pd.DataFrame, what: str) -> Finding:
    """Say whether the last truths lie inside their intervals as often as was meant, or chance explains the rest.

    Parameters
    ----------
    scored : DataFrame
        With the columns ``inside`` and ``interval``, in the order of time.
    """
    from mlops_dagster.ml.drift import COVERAGE_DAYS, RECENT_ROWS, UNLIKELY, chance_of_so_few_inside

    last = scored.tail(COVERAGE_DAYS)
    if len(last) < RECENT_ROWS:
        return _too_few(len(last), RECENT_ROWS, what)
    chance, inside, meant = chance_of_so_few_inside(last), float(last["inside"].mean()), float(last["interval"].mean())
    return Finding(
        chance >= UNLIKELY,
        f"Of the last {len(last)} scored {what} {inside:.0%} lie inside their interval, {meant:.0%} were expected "
        f"to. The chance of so few is {chance:.2g}; {UNLIKELY} or more passes.",
        {"coverage": inside, "interval": meant, "chance": chance, what: len(last)},
    )


def _too_few(count: int, needed: int, what: str = "days") -> Finding:
    return Finding(None, f"{count} {what} are scored, {needed} are needed.", {what: count})


def judge_drift(shares: Mapping[str, float], count: int) -> Finding:
    """Say whether too many of the recent values of any feature are unusual.

    Parameters
    ----------
    shares : mapping
        Of each feature which share is, the largest first.
    count : int
        Of how many values.
    """
    from mlops_dagster.modeling.drift import MIDDLE, MOST_OUTSIDE

    name, most = next(iter(shares.items()))
    return Finding(
        most <= MOST_OUTSIDE,
        f"{name} has drifted most: {most:.0%} of its last {count} values lie outside the middle {MIDDLE:.0%} of "
        f"those in training; up to {MOST_OUTSIDE:.0%} pass.",
        {f"outside_{feature}": share for feature, share in shares.items()},
    )


QUESTIONS: Mapping[str, Callable[[Inputs, Registry], Finding]] = {
    "Is the forecast up to date?": forecast_is_fresh,
    "Do the features look as in training?": features_have_not_drifted,
    "Is it as good as expected?": forecast_error_has_not_drifted,
    "Do the intervals hold?": interval_covers_the_truth,
}
"""As people ask them, each with what answers it."""
