"""AdaBoost: the first stages of a longer run are those of a shorter one.

The copy is cut, and not predicted stage by stage: the binary ``staged_decision_function`` differs in the last digit.
"""

from __future__ import annotations

from typing import Any

from mlops_dagster.search.families import Family
from mlops_dagster.search.fronts import why_random


class AdaBoost(Family):
    unread = ()

    def why_not(self, estimator: Any, rows: int) -> str:
        return why_random(estimator, but="estimator__")  # which gets a seed for each stage

    def grown(self, fitted: Any) -> int:
        return len(fitted.estimators_)

    def cut(self, served: Any) -> None:
        for name in ("estimators_", "estimator_weights_", "estimator_errors_"):
            setattr(served, name, getattr(served, name)[: served.n_estimators])
