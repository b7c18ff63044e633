"""Whether the values of features have left what a model learned from, and intervals still hold what they are meant to.

The limits were chosen on the bundled prices, 2006 to 2018 (`benchmarks/forecast_checks.py`). The usual population
stability index isn't used: features such as volatility_20d change so slowly that even most months of the training rows
themselves differ from all of them by more than 0.25, the index's usual limit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

MIDDLE = 0.99
"""Which share of the rows learned from counts as usual: the middle of a number's values, the commonest of others."""
MOST_OUTSIDE = 0.5
"""Up to which share of the recent rows may lie outside of that, for each feature."""
COVERAGE_ROWS, FEWEST_ROWS = 60, 20
"""Over how many scored rows intervals are judged, and by how few they aren't."""
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
        Feature to share, the largest first. Of numbers, outside is what lies beyond the middle `MIDDLE` of the rows
        learned from: there a forest no longer interpolates, it says what it says of the outermost leaf. Of texts and
        truth values it is what isn't among the commonest that make up `MIDDLE` of these rows. A missing value is
        outside if it was that rare.

    Examples
    --------
    >>> learned = pd.DataFrame({"calm": range(1000), "wild": range(1000), "town": ["A", "B"] * 500})
    >>> share_outside(learned, pd.DataFrame({"calm": [500, 600], "wild": [500, 2000], "town": ["A", "C"]}))
    {'wild': 0.5, 'town': 0.5, 'calm': 0.0}
    """
    shares = {str(name): float(np.mean(_outside(learned[name], recent[name]))) for name in learned.columns}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _outside(learned: pd.Series[Any], recent: pd.Series[Any]) -> Any:
    missing = recent.isna()
    rare = missing & bool(learned.isna().mean() < 1 - MIDDLE)
    known = learned.dropna()
    if learned.dtype.kind in "if":
        if known.empty:
            return rare | ~missing
        low, high = np.quantile(known, [(1 - MIDDLE) / 2, (1 + MIDDLE) / 2])
        return rare | (recent < low) | (recent > high)
    counts = known.value_counts()
    common = counts.index[(counts.cumsum() - counts) < MIDDLE * len(known)]
    return rare | (~missing & ~recent.isin(common))


def chance_of_so_few_inside(scored: pd.DataFrame) -> float:
    """Return how likely it is that so few truths lie inside their intervals, if each does as often as was meant.

    The binomial probability of as many as there were, or fewer, among the last `COVERAGE_ROWS` scored rows.

    Examples
    --------
    >>> scored = pd.DataFrame({"inside": [True, False, False], "interval": 0.5})
    >>> chance_of_so_few_inside(scored)
    0.5
    """
    last = scored.tail(COVERAGE_ROWS)
    rows, hits, level = len(last), int(last["inside"].sum()), float(last["interval"].mean())
    return float(sum(math.comb(rows, k) * level**k * (1 - level) ** (rows - k) for k in range(hits + 1)))
