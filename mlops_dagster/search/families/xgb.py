"""XGBoost's trees: the first rounds of a longer run are those of a shorter one, and a booster can be sliced."""

from __future__ import annotations

import numbers
from typing import Any

from mlops_dagster.search.families import Family


class XGBoost(Family):
    unread = ("verbosity",)

    def why_not(self, estimator: Any, rows: int) -> str:
        rounds, state = estimator.n_estimators, estimator.random_state
        if estimator.booster not in (None, "gbtree"):
            return f"the booster {estimator.booster} changes earlier rounds, or has none"
        if estimator.callbacks or estimator.early_stopping_rounds:
            return "callbacks and early stopping may depend on the number of rounds"
        if others := getattr(estimator, "kwargs", None):
            return f"{', '.join(sorted(others))} may depend on the number of rounds"
        if not (state is None or isinstance(state, numbers.Integral)):  # None stands for 0
            return "random_state isn't an integer, so no two fits are alike"
        if rounds is not None and (not isinstance(rounds, numbers.Integral) or int(rounds) < 1):
            return f"n_estimators={rounds!r} isn't a number of rounds"
        return ""

    def size(self, estimator: Any) -> int:
        return int(estimator.get_num_boosting_rounds())

    def cut(self, served: Any) -> None:
        served._Booster = served._Booster[: self.size(served)]
