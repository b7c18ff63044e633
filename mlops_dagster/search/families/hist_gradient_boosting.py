"""Histogram-based gradient boosting, as :mod:`.gradient_boosting`. Early stopping on its own begins at 10,000 rows.

Predictions are a sixth of the work where fits are shared and predictions aren't. So a copy goes on from the sum of a
smaller one's stages: the additions are scikit-learn's, in its order.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mlops_dagster.search.families import Family
from mlops_dagster.search.fronts import why_random

_STOPS_ABOVE = 10_000  # rows, with early_stopping="auto"
_BINNED = 200_000  # rows; of more, a random part tells the bins
_KEPT = 2  # sums: test rows and training rows


class HistGradientBoosting(Family):
    shared = ("max_iter",)

    def why_not(self, estimator: Any, rows: int) -> str:
        stops = rows > _STOPS_ABOVE if estimator.early_stopping == "auto" else estimator.early_stopping
        drawn = stops or estimator.max_features < 1 or rows > _BINNED
        return "warm_start" if estimator.warm_start else why_random(estimator) if drawn else ""

    def size(self, estimator: Any) -> int:
        return int(estimator.max_iter)

    def grown(self, fitted: Any) -> int:
        return int(fitted.n_iter_)

    def share(self, fitted: Any) -> None:
        fitted._sums = {}

    def cut(self, served: Any) -> None:
        # Where a score stops it, scikit-learn leaves the method of the fitted one here.
        served.__dict__.pop("_raw_predict", None)
        served._predictors = served._predictors[: served.max_iter]
        # One more than stages: the first is that of none. Empty where nothing stops early.
        served.train_score_ = served.train_score_[: served.max_iter + 1]
        served.validation_score_ = served.validation_score_[: served.max_iter + 1]
        served._predict_iterations = _GoesOn(served)


class _GoesOn:
    """Takes the place of a model's ``_predict_iterations``: goes on from what a smaller one has added up of these rows.

    Stages that aren't the copy's own, as a scorer may leave them, are added up as ever.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._stages = model, list(model._predictors)

    def __call__(self, X: Any, predictors: Any, raw_predictions: Any, *how: Any, **named: Any) -> None:
        model, sums = self._model, self._model._sums
        add = type(model)._predict_iterations
        if predictors != self._stages:
            add(model, X, predictors, raw_predictions, *how, **named)
            return
        key = X.shape, X.dtype.str, hashlib.sha256(np.ascontiguousarray(X).data).digest()
        done, total = sums.pop(key, (0, raw_predictions))
        if done > len(predictors):
            done, total = 0, raw_predictions
        raw_predictions[...] = total
        add(model, X, predictors[done:], raw_predictions, *how, **named)
        sums[key] = len(predictors), raw_predictions.copy()
        for oldest in list(sums)[:-_KEPT]:
            del sums[oldest]
