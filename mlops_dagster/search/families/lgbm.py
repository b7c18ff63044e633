"""LightGBM's trees: the first rounds of a longer run are those of a shorter one, and a booster can be written in part.

With several threads LightGBM measures which of two orders of addition is quicker, and takes it: fits repeat to the last
bit only where it is told which.
"""

from __future__ import annotations

import numbers
from typing import Any

from mlops_dagster.search.families import Family

_ORDERS = ("force_col_wise", "force_row_wise")


class LightGBM(Family):
    unread = ()

    def why_not(self, estimator: Any, rows: int) -> str:
        from lightgbm.basic import _ConfigAliases

        rounds, state, given = estimator.n_estimators, estimator.random_state, estimator.get_params()
        own = set(given) - {"boosting_type", "n_estimators"}
        if others := own & _ConfigAliases.get("num_iterations", "boosting", "early_stopping_round"):
            return f"{', '.join(sorted(others))} may depend on the number of rounds"
        if estimator.boosting_type not in ("gbdt", "rf", "goss"):
            return f"boosting_type={estimator.boosting_type!r} changes earlier rounds"
        if not (state is None or isinstance(state, numbers.Integral)):  # None stands for one seed
            return "random_state isn't an integer, so no two fits are alike"
        if estimator.n_jobs != 1 and not any(given.get(order) for order in _ORDERS):
            return "on several threads LightGBM's fits are alike with force_col_wise=True or n_jobs=1 only"
        if not isinstance(rounds, numbers.Integral) or int(rounds) < 1:
            return f"n_estimators={rounds!r} isn't a number of rounds"
        return ""

    def grown(self, fitted: Any) -> int:
        return int(fitted.n_estimators_)

    def cut(self, served: Any) -> None:
        from lightgbm import Booster

        rounds = served.n_estimators
        if rounds < served._Booster.current_iteration():
            served._Booster = Booster(model_str=served._Booster.model_to_string(num_iteration=rounds))
        if "n_estimators" in served._other_params:  # where set_params puts it a second time
            served._other_params = {**served._other_params, "n_estimators": rounds}
