"""Parameters that only ``predict`` reads: a threshold, the weights of a vote. One fit serves all of their values."""

from __future__ import annotations

from typing import Any

from mlops_dagster.search.families import Family
from mlops_dagster.search.fronts import why_random


class Threshold(Family):
    shared: tuple[str, ...] = ("threshold", "pos_label", "response_method")
    unread: tuple[str, ...] = ()
    counted = "fits"

    def why_not(self, estimator: Any, rows: int) -> str:
        return why_random(estimator)

    def size(self, estimator: Any) -> int:
        return 1


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
