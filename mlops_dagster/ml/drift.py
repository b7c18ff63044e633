"""Whether what comes in, and how wrong forecasts are, has left what the champion learned from.

The limits were chosen on the bundled prices, 2006 to 2018 (`benchmarks/forecast_checks.py`, docs/forecast.md). The
usual population stability index isn't used: features such as volatility_20d change so slowly that even most months of
the training rows themselves differ from all of them by more than 0.25, the index's usual limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

RECENT_ROWS = 20
"""How many of the last rows, or of the last scored days, are looked at: a trading month."""
MIDDLE = 0.99
"""Which share of the rows learned from counts as usual, in the middle of each feature's values."""
MOST_OUTSIDE = 0.5
"""Up to which share of the recent rows may lie outside of that, for each feature."""
MOST_ERROR = 1.5
"""Up to how many times the expected rmse the recent rmse may be, both relative to the price."""
COVERAGE_DAYS = 60
"""Over how many scored days the interval is judged; by fewer than `RECENT_ROWS` it isn't."""
UNLIKELY = 0.001
"""Below which probability so few truths inside their interval aren't taken for chance."""


def share_outside(learned: pd.DataFrame, recent: pd.DataFrame) -> dict[str, float]:
    """Return for each feature which share of the recent rows has values that the rows learned from hardly ever had.

    Parameters
    ----------
    learned, recent : DataFrame
        The same features of the rows learned from, and of the recent rows.

    Returns
    -------
    dict of str to float
        Feature to share, the largest first. Outside is what lies beyond the middle `MIDDLE` of the rows learned from:
        there a forest no longer interpolates, it says what it says of the outermost leaf.

    Examples
    --------
    >>> learned = pd.DataFrame({"calm": range(1000), "wild": range(1000)})
    >>> share_outside(learned, pd.DataFrame({"calm": [500, 600], "wild": [500, 2000]}))
    {'wild': 0.5, 'calm': 0.0}
    """
    shares = {}
    for name in learned.columns:
        low, high = np.quantile(learned[name], [(1 - MIDDLE) / 2, (1 + MIDDLE) / 2])
        shares[str(name)] = float(((recent[name] < low) | (recent[name] > high)).mean())
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class ErrorDrift:
    """The recent root mean squared error beside the one that was expected, both relative to the price.

    Parameters
    ----------
    expected : float
        The champion's own on rows that it hasn't learned from; NaN if it has no such rows.
    """

    recent: float
    expected: float
    days: int

    @property
    def ratio(self) -> float:
        """How many times the expected error the recent one is."""
        return self.recent / self.expected if self.expected > 0 else math.nan


def error_drift(scored: pd.DataFrame) -> ErrorDrift:
    """Compare the errors of the last `RECENT_ROWS` scored days with what was expected when the last was forecast."""
    last = scored.tail(RECENT_ROWS)
    recent = float(np.mean((last["error"] / last["price"]) ** 2) ** 0.5) if len(last) else math.nan
    expected = float(last["expected_rmse"].iloc[-1]) if len(last) else math.nan
    return ErrorDrift(recent, expected, len(last))


def chance_of_so_few_inside(scored: pd.DataFrame) -> float:
    """Return how likely it is that so few truths lie inside their intervals, if each does as often as was meant.

    The binomial probability of as many as there were, or fewer, among the last `COVERAGE_DAYS` scored days.

    Examples
    --------
    >>> scored = pd.DataFrame({"inside": [True, False, False], "interval": 0.5})
    >>> chance_of_so_few_inside(scored)
    0.5
    """
    last = scored.tail(COVERAGE_DAYS)
    days, hits, level = len(last), int(last["inside"].sum()), float(last["interval"].mean())
    return float(sum(math.comb(days, k) * level**k * (1 - level) ** (days - k) for k in range(hits + 1)))
