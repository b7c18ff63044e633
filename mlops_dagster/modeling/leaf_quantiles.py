"""Quantiles of what a forest has learned about rows: a quantile regression forest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
_CELLS = 2_000_000
"""How many weights (rows asked for x rows learned from) are held at once: 16 MB."""


def leaf_quantiles(
    model: Any,
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
    model : estimator
        A fitted forest of regression trees.
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
