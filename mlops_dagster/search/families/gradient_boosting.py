"""Gradient boosting: the first stages of a longer run are those of a shorter one, and it stops early where it would.

The split that early stopping holds out and its rule don't depend on the number of stages, so that a candidate has the
smaller of its own number and the one at which it stops.
"""

from __future__ import annotations

from typing import Any

from mlops_dagster.search.families import Family


class GradientBoosting(Family):
    def grown(self, fitted: Any) -> int:
        return int(fitted.n_estimators_)

    def cut(self, served: Any) -> None:
        for name in ("estimators_", "train_score_", "oob_improvement_", "oob_scores_"):
            if hasattr(served, name):
                setattr(served, name, getattr(served, name)[: served.n_estimators])
        served.n_estimators_ = len(served.estimators_)
        if hasattr(served, "oob_scores_"):
            served.oob_score_ = served.oob_scores_[-1]
