"""Whether forecasts are more wrong than was expected of the champion; whether their inputs are new is `modeling/drift`.

The limits were chosen on the bundled prices, 2006 to 2018 (`benchmarks/forecast_checks.py`, docs/forecast.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

RECENT_ROWS = 20
"""How many of the last rows, or of the last scored days, are looked at: a trading month."""
MOST_ERROR = 1.5
"""Up to how many times the expected rmse the recent rmse may be, both relative to the price."""
COVERAGE_DAYS = 60
"""Over how many scored days the interval is judged; by fewer than `RECENT_ROWS` it isn't."""
UNLIKELY = 0.001
"""Below which probability so few truths inside their interval aren't taken for chance."""


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
