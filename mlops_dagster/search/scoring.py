"""Scoring a forest of which only the summed predictions are left.

Scorers get something that is the forest to them: same class, same parameters, same classes, and ``predict`` returns
exactly what the forest would for the rows of its fold. Whatever needs the trees themselves raises
:class:`NeedsTheForest`, and the candidate is fitted plainly instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone, is_classifier
from sklearn.metrics._scorer import _BaseScorer, _MultimetricScorer, _PassthroughScorer
from sklearn.utils.validation import _check_feature_names

from mlops_dagster.search.data import Fold, SearchData
from mlops_dagster.search.fronts import grafted, last_step, shallow
from mlops_dagster.search.units import Sums


class NeedsTheForest(BaseException):
    """A scorer asked for more than predictions on the fold's own rows.

    Not an ``Exception``, so that no scorer and no ``error_score`` swallows it.
    """


def sees_predictions_only(scorer: Any) -> bool:
    """Whether a score depends on nothing but predictions: true of scikit-learn's scorers, unknown of a callable."""
    if isinstance(scorer, _MultimetricScorer):
        return all(sees_predictions_only(one) for one in scorer._scorers.values())
    return isinstance(scorer, _BaseScorer | _PassthroughScorer)


_FITTED_PRIVATELY = ("_n_samples", "_n_samples_bootstrap", "_sample_weight")


class _SummedForest:
    """Mixed into a forest class: predictions come from sums."""

    _predictions: list[tuple[Any, list[npt.NDArray[np.float64]]]]
    _n_summed: int
    oob_score: Any
    _asked: list[str]
    """What a scorer asked for in vain, in case that it caught the exception."""

    def _mean(self, X: Any) -> Any:
        for known, sums in self._predictions:
            if X is known:
                means = [total / self._n_summed for total in sums]
                return means if len(means) > 1 else means[0]
        return self._refuse("predictions on other rows than the fold's")

    def _refuse(self, what: str) -> Any:
        self._asked.append(what)
        raise NeedsTheForest(what)

    @property
    def estimators_(self) -> Any:
        return self._refuse("the trees")

    def __getattr__(self, name: str) -> Any:
        if name in _FITTED_PRIVATELY or (name.startswith("oob_") and self.oob_score):
            return self._refuse(f"its {name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        return self._refuse("to fit it again")

    def __sklearn_clone__(self) -> Any:
        return self._refuse("a clone of it")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._refuse("a copy of it")


class _SummedRegressor(_SummedForest):
    def predict(self, X: Any) -> Any:
        return self._mean(X)


class _SummedClassifier(_SummedForest):
    # The class itself derives everything else from probabilities.
    def predict_proba(self, X: Any) -> Any:
        return self._mean(X)


class _SummedPipeline:
    """Mixed into a pipeline: what it knows the predictions of needn't pass the transformers again."""

    steps: list[tuple[str, Any]]

    def predict(self, X: Any) -> Any:
        return self.steps[-1][1].predict(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        return self.steps[-1][1].score(X, y, sample_weight=sample_weight)


class _SummedClassifierPipeline(_SummedPipeline):
    def predict_proba(self, X: Any) -> Any:
        return self.steps[-1][1].predict_proba(X)

    def predict_log_proba(self, X: Any) -> Any:
        return self.steps[-1][1].predict_log_proba(X)


def _mixed(estimator: Any, mixin: Any) -> Any:
    """Return a shallow copy with something mixed into its class."""
    its_class: Any = type(estimator)
    return shallow(estimator, _summed_class(mixin, its_class))


@cache
def _summed_class(mixin: Any, base: Any) -> type:
    return type(base.__name__, (mixin, base), {"__module__": base.__module__})


def asked_in_vain(estimator: Any) -> str:
    """Return what a scorer asked a stand-in for that only the forest itself has; empty if nothing."""
    forest = last_step(estimator, fitted=True)
    return next(iter(forest._asked), "")


def stand_in(
    data: SearchData, fold: Fold, parameters: Mapping[str, Any], sums: Sums, n_trees: int, known: Sequence[Any]
) -> Any:
    """Return what scorers see instead of the fitted estimator.

    Parameters
    ----------
    fold : Fold
        The fold that the sums are of.
    parameters : mapping
        The candidate's, as ``set_params`` of the estimator takes them.
    sums : list of list of array
        See `units.Sums`.
    known : sequence of array-like
        The rows that the sums are for, as the scorer will get them.
    """
    estimator = clone(data.estimator).set_params(**clone(parameters, safe=False))
    forest = last_step(estimator)
    classifier = is_classifier(forest)

    summed = _mixed(forest, _SummedClassifier if classifier else _SummedRegressor)
    _give_sums(summed, sums, n_trees, known)
    _learn_targets(summed, fold.rows.y, classifier=classifier)
    summed.n_features_in_ = fold.rows.X.shape[1]
    summed._validate_estimator()
    if forest is estimator:
        _check_feature_names(summed, fold.X_test, reset=True)
        return summed
    mixin = _SummedClassifierPipeline if classifier else _SummedPipeline
    return grafted(fold.composite, estimator, summed, lambda pipeline: _mixed(pipeline, mixin))


def with_sums(estimator: Any, sums: Sums, n_trees: int, known: Sequence[Any]) -> Any:
    """Return a stand-in like another one of the same fold, but for its sums.

    It costs no clone, and has the other's parameters, so it is for scorers that see predictions only.
    """
    forest = last_step(estimator, fitted=True)
    summed = shallow(forest)
    _give_sums(summed, sums, n_trees, known)
    return grafted(estimator, estimator, summed)


def _give_sums(forest: Any, sums: Sums, n_trees: int, known: Sequence[Any]) -> None:
    forest._n_summed = n_trees
    forest._asked = []
    forest._predictions = list(zip(known, sums, strict=False))


def _learn_targets(forest: Any, y: Any, *, classifier: bool) -> None:
    """Set what a fitted forest knows about its target."""
    y = np.asarray(y)
    columns = y.reshape(-1, 1) if y.ndim == 1 else y
    forest.n_outputs_ = columns.shape[1]
    if classifier:
        classes = [np.unique(columns[:, output]) for output in range(columns.shape[1])]
        one = len(classes) == 1
        forest.classes_ = classes[0] if one else classes
        forest.n_classes_ = len(classes[0]) if one else [len(its_classes) for its_classes in classes]
