"""Bagging and isolation forests: the seeds of a few estimators are the first of those of many."""

from __future__ import annotations

from typing import Any

from mlops_dagster.search.families import Family
from mlops_dagster.search.fronts import why_random

_EACH = ("estimators_", "estimators_features_", "_seeds", "_average_path_length_per_tree", "_decision_path_lengths")


class Bagging(Family):
    unread = ("verbose", "n_jobs")
    counted = "estimators"

    def why_not(self, estimator: Any, rows: int) -> str:
        if estimator.warm_start:
            return "warm_start"
        if getattr(estimator, "contamination", "auto") != "auto":
            return "contamination needs each ensemble's scores of all training rows"
        return why_random(estimator, but="estimator__")  # each of which gets a seed

    def widen(self, estimator: Any) -> None:
        if getattr(estimator, "oob_score", False):  # which each size has to find out: what it takes is left for later
            estimator._set_oob_score = lambda X, y: setattr(estimator, "_oob_rows", (X, y))

    def cut(self, served: Any) -> None:
        for name in _EACH:
            if hasattr(served, name):
                setattr(served, name, getattr(served, name)[: served.n_estimators])
        if rows := served.__dict__.pop("_oob_rows", None):
            del served._set_oob_score
            served._set_oob_score(*rows)
