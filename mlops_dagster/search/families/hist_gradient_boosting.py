"""Histogram-based gradient boosting, as :mod:`.gradient_boosting`. Early stopping on its own begins at 10,000 rows."""

from __future__ import annotations

from typing import Any

from mlops_dagster.search.families import Family
from mlops_dagster.search.fronts import why_random

_STOPS_ABOVE = 10_000  # rows, with early_stopping="auto"
_BINNED = 200_000  # rows; of more, a random part tells the bins


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

    def cut(self, served: Any) -> None:
        # Where a score stops it, scikit-learn leaves the method of the fitted one here.
        served.__dict__.pop("_raw_predict", None)
        served._predictors = served._predictors[: served.max_iter]
        # One more than stages: the first is that of none. Empty where nothing stops early.
        served.train_score_ = served.train_score_[: served.max_iter + 1]
        served.validation_score_ = served.validation_score_[: served.max_iter + 1]
