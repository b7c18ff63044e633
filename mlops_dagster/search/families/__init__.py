"""What candidates can share besides the trees of a forest: a family says it of one kind of estimator.

A family is one module, and one line for each of its classes in the table below. Candidates that differ in nothing but
what the family shares are one fit, that of the largest; each candidate is then a shallow copy of it, cut to its size.
Such a copy is the estimator that a fit of its own would have left, so that every scorer works on it unchanged.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mlops_dagster.search.fronts import last_step, why_random
from mlops_dagster.search.growing import FORESTS

_TABLE = {
    "lightgbm.LGBMClassifier": "lgbm.LightGBM",
    "lightgbm.LGBMRegressor": "lgbm.LightGBM",
    "sklearn.AdaBoostClassifier": "adaboost.AdaBoost",
    "sklearn.AdaBoostRegressor": "adaboost.AdaBoost",
    "sklearn.BaggingClassifier": "bagging.Bagging",
    "sklearn.BaggingRegressor": "bagging.Bagging",
    "sklearn.DecisionTreeClassifier": "tree.Tree",
    "sklearn.DecisionTreeRegressor": "tree.Tree",
    "sklearn.ExtraTreeClassifier": "tree.Tree",
    "sklearn.ExtraTreeRegressor": "tree.Tree",
    "sklearn.FixedThresholdClassifier": "predicting.Threshold",
    "sklearn.GradientBoostingClassifier": "gradient_boosting.GradientBoosting",
    "sklearn.GradientBoostingRegressor": "gradient_boosting.GradientBoosting",
    "sklearn.HistGradientBoostingClassifier": "hist_gradient_boosting.HistGradientBoosting",
    "sklearn.HistGradientBoostingRegressor": "hist_gradient_boosting.HistGradientBoosting",
    "sklearn.IsolationForest": "bagging.Bagging",
    "sklearn.KNeighborsClassifier": "neighbours.Neighbours",
    "sklearn.KNeighborsRegressor": "neighbours.Neighbours",
    "sklearn.TunedThresholdClassifierCV": "predicting.TunedThreshold",
    "sklearn.VotingClassifier": "predicting.VoteOfClasses",
    "sklearn.VotingRegressor": "predicting.Vote",
    "xgboost.XGBClassifier": "xgb.XGBoost",
    "xgboost.XGBRegressor": "xgb.XGBoost",
}
"""The family of each class, by package and name: nothing is imported that isn't used."""


class Family:
    """How candidates of one kind of estimator share a fit.

    Attributes
    ----------
    shared : tuple of str
        The parameters in which candidates may differ.
    unread : tuple of str
        The parameters that say how, not what.
    counted : str
        What sizes count.
    """

    shared: tuple[str, ...] = ("n_estimators",)
    unread: tuple[str, ...] = ("verbose",)
    counted: str = "stages"

    def why_not(self, estimator: Any, rows: int) -> str:
        """Return why this estimator shares nothing on so many training rows; empty if it may share."""
        return why_random(estimator) or ("warm_start" if getattr(estimator, "warm_start", False) else "")

    def size(self, estimator: Any) -> int:
        """Return how much a fit of it takes: a larger one serves all smaller ones."""
        return int(estimator.n_estimators)

    def grown(self, fitted: Any) -> int:
        """Return how much its fit really took."""
        return self.size(fitted)

    def widen(self, estimator: Any) -> None:
        """Change the largest, before it is fitted, into what all of them can be cut from."""

    def share(self, fitted: Any) -> None:
        """Give the fitted one what all its copies will share."""

    def cut(self, served: Any) -> None:
        """Cut a copy of the largest to the size that its parameters say, which are the candidate's already."""


def family_of(estimator: Any) -> Family | None:
    """Return the family of an estimator; None if its class is in none."""
    its_class = type(estimator)
    said = _TABLE.get(f"{its_class.__module__.partition('.')[0]}.{its_class.__name__}")
    if said is None:
        return None
    module, _, name = said.partition(".")
    family: Family = getattr(import_module(f"{__name__}.{module}"), name)()
    return family


def can_share(estimator: Any) -> bool:
    """Whether candidates of this estimator, or of the pipeline that ends in it, may share work."""
    last = last_step(estimator)
    return type(last) in FORESTS or family_of(last) is not None
