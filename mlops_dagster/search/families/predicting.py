"""Parameters that no fit reads: a threshold, how it is found, the weights of a vote. One fit serves all values."""

from __future__ import annotations

import numbers
from functools import partial
from typing import Any

from mlops_dagster.search.families import Family
from mlops_dagster.search.fronts import why_random
from mlops_dagster.search.once import fitted_once


class Threshold(Family):
    shared: tuple[str, ...] = ("threshold", "pos_label", "response_method")
    unread: tuple[str, ...] = ()
    counted = "fits"

    def why_not(self, estimator: Any, rows: int) -> str:
        return why_random(estimator)

    def size(self, estimator: Any) -> int:
        return 1


class TunedThreshold(Threshold):
    """The threshold is looked for again for each candidate, with the fits that there are."""

    shared = ("scoring", "thresholds", "response_method", "store_cv_results")

    def why_not(self, estimator: Any, rows: int) -> str:
        if estimator.n_jobs not in (None, 1):
            return "with n_jobs it fits in other processes"
        if isinstance(estimator.cv, float):
            return why_random(estimator)
        if estimator.cv is not None and not isinstance(estimator.cv, numbers.Integral):
            return "its cv isn't a number, and may draw"
        return why_random(estimator, but="random_state")  # which is for a cv that is a share of rows

    def widen(self, estimator: Any) -> None:
        estimator._fit = partial(_keeping, estimator)

    def cut(self, served: Any) -> None:
        X, y, params, kept = served.__dict__.pop("_kept")
        _refit(served, X, y, params, kept)


def _keeping(estimator: Any, X: Any, y: Any, **params: Any) -> None:
    estimator._kept = X, y, params, {}
    _refit(estimator, *estimator._kept)


def _refit(estimator: Any, X: Any, y: Any, params: dict[str, Any], kept: dict[Any, Any]) -> None:
    def keep(key: Any, make: Any) -> Any:
        if key not in kept:
            kept[key] = make()
        return kept[key]

    estimator.__dict__.pop("_fit", None)
    with fitted_once(estimator.estimator, keep):
        estimator._fit(X, y, **params)


class Vote(Threshold):
    shared: tuple[str, ...] = ("weights",)
    unread = ("verbose", "n_jobs")

    def why_not(self, estimator: Any, rows: int) -> str:
        weights = estimator.weights
        if weights is not None and len(weights) != len(estimator.estimators):
            return f"there are {len(weights)} weights for {len(estimator.estimators)} estimators"
        return why_random(estimator)


class VoteOfClasses(Vote):
    shared = ("weights", "voting", "flatten_transform")
