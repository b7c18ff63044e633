"""Which rows a model is trained on and which it is tested on."""

from __future__ import annotations

import math

import numpy as np

from mlops_dagster.modeling.splits import Split


def shuffled_split(rows: int, *, test_size: float, seed: int) -> Split:
    """Split as scikit-learn's ``train_test_split`` does: each part is a random sample, in random order.

    On a time series this is leakage: almost every test day has a training day right before and right after it.

    Examples
    --------
    >>> split = shuffled_split(10, test_size=0.3, seed=42)
    >>> split.train.tolist(), split.test.tolist()
    ([0, 7, 2, 9, 4, 3, 6], [8, 1, 5])
    """
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(rows), test_size=test_size, random_state=seed)
    return Split(train, test)


def chronological_split(rows: int, *, test_size: float, gap: int) -> Split:
    """Split into the first rows for training, a gap, and the last rows for testing.

    With a gap of one horizon, what the last training row was to forecast had happened before the first test day.

    Parameters
    ----------
    test_size : float
        The share of the rows for testing; rounded up to whole rows, as scikit-learn does.
    gap : int
        How many rows to leave out before the first test row.

    Examples
    --------
    >>> split = chronological_split(10, test_size=0.3, gap=2)
    >>> split.train.tolist(), split.test.tolist()
    ([0, 1, 2, 3, 4], [7, 8, 9])
    """
    first_test = rows - math.ceil(rows * test_size)
    return Split(np.arange(max(first_test - gap, 0)), np.arange(first_test, rows))
