"""What a model answers, row by row."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import MlopsError, written
from mlops_dagster.modeling.targets import Label
from mlops_dagster.modeling.training_set import TrainingSet

Array = npt.NDArray[Any]


class Model(Protocol):
    """What can be evaluated: anything that predicts."""

    def predict(self, X: pd.DataFrame) -> Any:
        """Predict one target per row."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model answers, row by row.

    Parameters
    ----------
    value : array of shape (rows,), optional
        Of a regression: numbers on the scale of what is judged.
    classes : array of shape (rows,), optional
        Of a classification: the predicted class.
    probabilities : array of shape (rows, labels), optional
        Of a classifier that knows them, in the order of `labels`.
    scores : array of shape (rows,) or (rows, labels), optional
        The decision function of a classifier that has no probabilities.
    labels : tuple
        The classes there are.
    positive : str, int or bool, optional
        Of two classes: which precision, recall and the like are about.
    """

    value: npt.NDArray[np.float64] | None = None
    classes: Array | None = None
    probabilities: npt.NDArray[np.float64] | None = None
    scores: npt.NDArray[np.float64] | None = None
    labels: tuple[Label, ...] = ()
    positive: Label | None = None

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def predicted(self) -> Array:
        """The value, or the class."""
        answers = self.classes if self.value is None else self.value
        assert answers is not None
        return answers

    def take(self, rows: npt.NDArray[np.intp]) -> Outputs:
        """Return the answers of some rows."""
        of_rows = {
            one.name: getattr(self, one.name)[rows]
            for one in fields(self)
            if isinstance(getattr(self, one.name), np.ndarray)
        }
        return Outputs(**of_rows, labels=self.labels, positive=self.positive)


def outputs_of(model: Model, training_set: TrainingSet, rows: pd.DataFrame) -> Outputs:
    """Ask a model for some rows of a training set; what a forecast learned of a change becomes a value again.

    Raises
    ------
    MlopsError
        If what it answers isn't finite, or one answer a row.
    """
    inputs, labels = training_set.inputs(rows), training_set.classes
    predicted = np.asarray(model.predict(inputs))
    if predicted.shape != (len(rows),):
        raise MlopsError(
            f"{type(model).__name__}.predict gives an array of shape {predicted.shape} for {len(rows):,} rows; one "
            "answer a row is needed."
        )
    if labels is None:
        values = training_set.to_value(predicted, rows)
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise MlopsError(
                f"{type(model).__name__} predicts {values[wrong[0]]} for {len(wrong):,} of {len(rows):,} rows; check "
                "the parameters, or scale the features inside a Pipeline."
            )
        return Outputs(value=values)
    known = list(getattr(model, "classes_", labels))
    absent = [label for label in labels if label not in known]
    if absent:
        raise MlopsError(
            f"{type(model).__name__} has never seen class {written(absent[0])}; train it on this training set."
        )
    order = [known.index(label) for label in labels]
    probabilities, scores = None, None
    if hasattr(model, "predict_proba"):
        probabilities = np.asarray(model.predict_proba(inputs), dtype=np.float64)[:, order]
    elif hasattr(model, "decision_function"):
        scores = np.asarray(model.decision_function(inputs), dtype=np.float64)
        scores = scores if scores.ndim == 1 else scores[:, order]
    return Outputs(
        classes=predicted, probabilities=probabilities, scores=scores, labels=labels, positive=training_set.positive
    )
