"""How sure a prediction of a number is: an interval that holds a given share of truths, of any regressor.

Split conformal prediction (V. Vovk, A. Gammerman and G. Shafer, "Algorithmic Learning in a Random World", 2005): how
wrong the model is on rows that it hasn't learned from says how wrong it will be. The one assumption is that the rows to
predict are like those (exchangeable with them); where the world changes, as in time, the share is missed. That a
champion was chosen by the same rows makes its intervals a trifle narrow.

A forest's intervals are wide where it knows little: the quantiles of its leaves, widened or narrowed by as much as they
miss on the same rows (Y. Romano, E. Patterson and E. Candes, "Conformalized Quantile Regression", 2019).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.leaf_quantiles import leaf_quantiles
from mlops_dagster.modeling.outputs import Model
from mlops_dagster.modeling.training_set import TrainingSet
from mlops_dagster.search.growing import FORESTS

Floats = npt.NDArray[np.float64]
_CELLS = 50_000_000
"""Of more pairs of a row learned from and a row asked for, leaves aren't looked up: it would take minutes."""


def intervals(
    model: Model, training_set: TrainingSet, rows: pd.DataFrame, level: float, *, by_leaves_alone: bool = False
) -> tuple[Floats, Floats, str]:
    """Return an interval for each of some rows.

    Parameters
    ----------
    model : estimator
        A fitted regressor.
    training_set : TrainingSet
        What it has learned from, with the test rows, which it hasn't.
    rows : DataFrame
        To predict, n of them: the features, and of forecasts what is now (``current``).
    level : float
        The share of truths that an interval is meant to hold.
    by_leaves_alone : bool
        Whether a forest's leaves alone say it, of all rows that came before the last that it has learned from.

    Returns
    -------
    lower, upper : ndarray of shape (n,)
        On the scale of what is judged.
    said : str
        What they are made of, and what they assume, in a sentence.

    Raises
    ------
    ParameterError
        If there are too few test rows for the level, or only leaves were to say it and there are none.
    """
    forest = isinstance(model, FORESTS)
    if by_leaves_alone:
        if not forest:
            cure = f"a {type(model).__name__} has no leaves; give interval_from: errors, or another estimator."
            raise refuse("predictions.interval_from", "leaves", cure)
        known = _known(training_set)
        quantiles = leaf_quantiles(
            model, training_set.inputs(known), training_set.targets(known), training_set.inputs(rows), _levels(level)
        )
        said = f"The intervals are quantiles of what the forest's leaves hold, of {len(known):,} rows."
        return training_set.to_value(quantiles[:, 0], rows), training_set.to_value(quantiles[:, 1], rows), said
    tested = training_set.rows("test")
    rank = math.ceil((len(tested) + 1) * level)
    if rank > len(tested):
        needed = math.ceil(level / (1 - level))
        cure = f"{needed} are needed: give a smaller share, more rows, or a larger test_size."
        raise refuse("interval", level, f"there are {len(tested)} test rows to take it from; {cure}")
    # Both, or neither: what was missed is to be missed again.
    by_leaves = forest and len(training_set.X_train) * (len(tested) + len(rows)) <= _CELLS
    at_test, asked = (_bounds(model, training_set, some, level, by_leaves) for some in (tested, rows))
    truth = tested["target"].to_numpy(dtype=np.float64)
    missed = np.maximum(at_test[:, 0] - truth, truth - at_test[:, 1])
    # The smallest such that, had the row to predict been one of the test rows, it would be among as many as needed.
    wider = np.sort(missed)[rank - 1]
    ends = np.sort(np.stack([asked[:, 0] - wider, asked[:, 1] + wider]), axis=0)
    lower, upper = np.sort([training_set.to_value(end, rows) for end in ends], axis=0)
    how = "the quantiles of the forest's leaves and " if by_leaves else ""
    said = (
        f"The intervals hold {100 * level:g} % of truths as long as the rows are like the {len(tested):,} test rows: "
        f"they were made of {how}the errors on those (split conformal prediction)."
    )
    return lower, upper, said


def _levels(level: float) -> list[float]:
    return [(1 - level) / 2, (1 + level) / 2]


def _known(training_set: TrainingSet) -> pd.DataFrame:
    """Return the rows whose truth was there when the last training row's was: of a shuffled split test rows, too."""
    times, train = training_set.truth_times(), training_set.rows("train")
    if times is None:
        return train
    known: pd.DataFrame = training_set.frame[times <= times.loc[train.index].max()]
    return known


def _bounds(model: Any, training_set: TrainingSet, rows: pd.DataFrame, level: float, by_leaves: bool) -> Floats:
    """Return what the model itself takes for the interval, shape (rows, 2): of most the prediction, twice."""
    if by_leaves:
        learned, targets = training_set.X_train, training_set.y_train
        return leaf_quantiles(model, learned, targets, training_set.inputs(rows), _levels(level))
    predicted = np.asarray(model.predict(training_set.inputs(rows)), dtype=np.float64)
    return np.repeat(predicted[:, None], 2, axis=1)
