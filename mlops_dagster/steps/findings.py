"""Answers to whether predictions are as they should be. Asked by Dagster's checks, and by the state of things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


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


def judge_intervals(scored: pd.DataFrame, what: str) -> Finding:
    """Say whether the last truths lie inside their intervals as often as was meant, or chance explains the rest.

    Parameters
    ----------
    scored : DataFrame
        With the columns ``inside`` and ``interval``, in the order of time.
    """
    from mlops_dagster.modeling.drift import COVERAGE_ROWS, FEWEST_ROWS, UNLIKELY, chance_of_so_few_inside

    last = scored.tail(COVERAGE_ROWS)
    if len(last) < FEWEST_ROWS:
        return Finding(None, f"{len(last)} {what} are scored, {FEWEST_ROWS} are needed.", {what: len(last)})
    chance, inside, meant = chance_of_so_few_inside(last), float(last["inside"].mean()), float(last["interval"].mean())
    return Finding(
        chance >= UNLIKELY,
        f"Of the last {len(last)} scored {what} {inside:.0%} lie inside their interval, {meant:.0%} were expected "
        f"to. The chance of so few is {chance:.2g}; {UNLIKELY} or more passes.",
        {"coverage": inside, "interval": meant, "chance": chance, what: len(last)},
    )


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
