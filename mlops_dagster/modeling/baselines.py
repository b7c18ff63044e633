"""What a model has to be better than: the answers that nobody needs a model for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.dummy import DummyClassifier, DummyRegressor

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.outputs import Outputs, outputs_of
from mlops_dagster.modeling.training_set import TrainingSet
from mlops_dagster.spec.functions import calling
from mlops_dagster.spec.model import Declaration

Guess = Callable[[pd.DataFrame, pd.DataFrame], Any]


def baseline_outputs(
    declaration: Declaration, training_set: TrainingSet, rows: pd.DataFrame, function: Guess | None = None
) -> Outputs:
    """Return what the declared baseline answers for some rows.

    Parameters
    ----------
    rows : pandas.DataFrame
        Of the training set's frame, n of them.
    function : callable, optional
        Of kind function: from the training rows and the rows to predict (which lack target and truth) to n values on
        the scale of what is judged, n classes, or probabilities of shape (n, classes).

    Raises
    ------
    ParameterError
        If there is no answer for some row.
    UserCodeError
        If the function fails.
    """
    declared = declaration.baseline
    if declared.kind == "function":
        assert function is not None
        answers = rows.drop(columns=["target", "truth", "split", "position"], errors="ignore")
        guessed = calling(f"baseline {declared.function}", function, training_set.rows("train"), answers)
        return _given(training_set, np.asarray(guessed), len(rows), f"baseline.function={declared.function!r}")
    if declared.kind == "column":
        assert declared.column is not None
        return _given(training_set, rows[declared.column].to_numpy(), len(rows), f"baseline.column={declared.column!r}")
    if declared.kind in ("persistence", "seasonal_naive"):
        ago = 0
        if declared.season is not None and training_set.horizon is not None:
            # As it was a season before the truth: so many rows ago, or as many seasons more as the horizon is ahead.
            ago = declared.season * math.ceil(training_set.horizon / declared.season) - training_set.horizon
        values = _known_before(training_set, ago).loc[rows.index].to_numpy()
        return _given(training_set, values, len(rows), f"baseline.kind={declared.kind!r}")
    if declared.kind in ("mean", "median"):
        dummy: Any = DummyRegressor(strategy=declared.kind)
    else:
        dummy = DummyClassifier(strategy=declared.kind, random_state=declaration.split.seed)
    return outputs_of(dummy.fit(training_set.X_train, training_set.y_train), training_set, rows)


def _known_before(training_set: TrainingSet, ago: int) -> pd.Series[float]:
    """Return what was known so many rows ago, within its series: the last value before a gap, the present if none."""
    frame = training_set.frame
    group = np.zeros(len(frame)) if training_set.group is None else frame[training_set.group]
    known: pd.Series[float] = frame["current"].groupby(group, sort=False).ffill()
    return known.groupby(group, sort=False).shift(ago).fillna(known)


def _given(training_set: TrainingSet, guessed: npt.NDArray[Any], rows: int, said: str) -> Outputs:
    labels, positive = training_set.classes, training_set.positive
    missing = np.flatnonzero(pd.isna(guessed if guessed.ndim == 1 else guessed[:, 0]))
    if guessed.shape not in ((rows,), (rows, len(labels or ()))) or len(missing):
        which = f"its answer to row {missing[0] + 1:,} is missing" if len(missing) else f"its shape is {guessed.shape}"
        raise refuse("baseline", said, f"{which}; it has to answer each of the {rows:,} rows.")
    if labels is None:
        if guessed.dtype.kind not in "iuf":
            raise refuse("baseline", said, "it answers a regression with something else than numbers.")
        return Outputs(value=guessed.astype(np.float64))
    if guessed.ndim == 2:
        probabilities = guessed.astype(np.float64)
    elif len(labels) == 2 and guessed.dtype.kind == "f" and ((guessed >= 0) & (guessed <= 1)).all():
        of_positive = guessed.reshape(-1, 1)
        both = [1 - of_positive, of_positive] if positive == labels[1] else [of_positive, 1 - of_positive]
        probabilities = np.hstack(both)
    else:
        places = pd.Index(labels, dtype=object).get_indexer(pd.Index(guessed, dtype=object))
        unknown = np.flatnonzero(places < 0)
        if len(unknown):
            cure = f"is no class; there are {', '.join(map(repr, labels[:20]))}."
            raise refuse("baseline", said, f"its answer to row {unknown[0] + 1:,}, {guessed[unknown[0]]!r}, {cure}")
        probabilities = np.eye(len(labels))[places]
    classes = np.array(labels, dtype=None if not isinstance(labels[0], str) else object)[probabilities.argmax(axis=1)]
    return Outputs(classes=classes, probabilities=probabilities, labels=labels, positive=positive)
