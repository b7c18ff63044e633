"""Which parameters make the same trees, as far as scikit-learn's source proves it.

The proofs are in ``sklearn/tree/_classes.py`` (``BaseDecisionTree._fit``) and ``sklearn/tree/_tree.pyx`` (builders):

- ``min_samples_split`` and ``min_samples_leaf``: a node becomes a leaf when it has fewer rows than the larger of
  ``min_samples_split`` and 2 x ``min_samples_leaf``. Both are row numbers: shares of the rows are rounded up first.
- ``max_depth`` binds only where a node reaches it; whether one did is seen on the tree (`units.Segment.holds_for`).
  With ``max_leaf_nodes`` the finished tree doesn't show it, so there the limit is a parameter as any other.
- ``ccp_alpha`` prunes a tree that is grown already, and draws nothing. So one tree serves every value, and as long as
  it is whole it shows whether it met its depth limit.
- ``oob_score`` is found out once all trees are grown, and changes none. Where it may raise, fits are plain: without
  ``bootstrap``, for classes of several targets, by a function of somebody's own, with numbers that overflow (`units`).
- ``max_features`` is a number of features in the end.
- ``n_jobs`` and ``verbose`` say how, not what.
"""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import ceil, log2, sqrt
from typing import Any

import joblib
from sklearn.base import is_classifier
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

from mlops_dagster.search.growing import NO_LIMIT, Limit

_HOW_ONLY = {"n_jobs", "verbose"}
_READ_APART = {"n_estimators", "max_depth", "min_samples_split", "min_samples_leaf", "warm_start", "oob_score"}


@dataclass(frozen=True)
class ForestKey:
    """What a forest's trees depend on, besides the rows.

    Parameters
    ----------
    group : tuple
        Equal for forests whose trees are the same, one by one, up to the limit.
    """

    group: tuple[Hashable, ...]
    limit: Limit
    n_trees: int


class ForestReader:
    """Reads candidates of one forest.

    Parameters
    ----------
    forest : estimator
        The forest that candidates' parameters are set on.
    n_features : int, optional
        How many features it will see, if that is known.
    one_target : bool, default=False
        Whether the target is known to be one column.
    """

    def __init__(self, forest: Any, n_features: int | None = None, *, one_target: bool = False) -> None:
        self._class = type(forest)
        self._many_classes = is_classifier(forest) and not one_target
        self._own: dict[str, Any] = forest.get_params(deep=False)
        self._n_features = n_features
        self._names = sorted(set(self._own) - _HOW_ONLY - _READ_APART)
        self._refusals: dict[tuple[str, type, Hashable], str] = {}
        self._tokens: dict[tuple[str, type, Hashable], Hashable] = {}
        refusals = {name: self._refusal(name, value) for name, value in self._own.items()}
        self._own_refusals = {name: refusal for name, refusal in refusals.items() if refusal}

    def read(self, parameters: Mapping[str, Any], n_rows: int) -> ForestKey | str:
        """Return what the candidate's trees depend on, or why nothing can be said about them.

        Parameters
        ----------
        parameters : mapping
            The candidate's, those of the forest only.
        n_rows : int
            How many training rows the fold has.
        """
        for name, refusal in self._own_refusals.items():
            if name not in parameters:
                return refusal
        for name, value in parameters.items():
            if refusal := self._refusal(name, value):
                return refusal
        values = {**self._own, **parameters}
        if reason := self._unpredictable(values):
            return reason
        leaf = _rows(values["min_samples_leaf"], n_rows)
        split = max(2, _rows(values["min_samples_split"], n_rows))
        depth = NO_LIMIT if values["max_depth"] is None else int(values["max_depth"])
        fixed_depth = depth if values["max_leaf_nodes"] is not None else None
        tokens = tuple(self._token(name, values[name]) for name in self._names)
        group = (*tokens, leaf, max(split, 2 * leaf), fixed_depth)
        return ForestKey(group, (depth, float(values["ccp_alpha"])), int(values["n_estimators"]))

    def _unpredictable(self, values: Mapping[str, Any]) -> str:
        if not isinstance(values["random_state"], numbers.Integral):
            return "random_state isn't an integer, so no two forests share a tree"
        if values["warm_start"]:
            return "warm_start"
        if values["oob_score"]:
            if not values["bootstrap"]:
                return "scikit-learn refuses oob_score with bootstrap=False"
            if callable(values["oob_score"]) or self._many_classes:
                return "oob_score may fail with a function of your own, or for classes that aren't one array"
        if not values["bootstrap"] and values["max_samples"] is not None:
            return "scikit-learn refuses max_samples with bootstrap=False"
        return ""

    def _refusal(self, name: str, value: Any) -> str:
        """Return why scikit-learn would refuse a value; constraints are per parameter."""
        key = _memo_key(name, value)
        if key is not None and key in self._refusals:
            return self._refusals[key]
        try:
            validate_parameter_constraints(
                self._class._parameter_constraints, {name: value}, caller_name=self._class.__name__
            )
            refusal = ""
        except InvalidParameterError:
            refusal = f"scikit-learn refuses {name}={value!r}"
        if key is not None:
            self._refusals[key] = refusal
        return refusal

    def _token(self, name: str, value: Any) -> Hashable:
        key = _memo_key(name, value)
        if key is not None and key in self._tokens:
            return self._tokens[key]
        token = self._canonical(name, value)
        if key is not None:
            self._tokens[key] = token
        return token

    def _canonical(self, name: str, value: Any) -> Hashable:
        if name == "ccp_alpha":
            return (name, "float", 0.0)  # as caches have it of whole trees
        if name == "max_features" and self._n_features is not None:
            return _features(value, self._n_features)
        if value is None or isinstance(value, str | bool):
            return (name, value)
        if isinstance(value, numbers.Integral):
            # numpy's integers too; 1 and 1.0 are different things to scikit-learn, and equal ones to Python.
            return (name, "int", int(value))
        if isinstance(value, numbers.Real):
            return (name, "float", float(value))
        return (name, type(value).__name__, joblib.hash(value))


def _memo_key(name: str, value: Any) -> tuple[str, type, Hashable] | None:
    try:
        hash(value)
    except TypeError:
        return None
    return (name, type(value), value)


def _rows(value: Any, n_rows: int) -> int:
    """Return a number of rows, as trees understand ``min_samples_leaf`` and ``min_samples_split``."""
    return int(value) if isinstance(value, numbers.Integral) else ceil(value * n_rows)


def _features(value: Any, n_features: int) -> Hashable:
    """Return a number of features, as trees understand ``max_features``."""
    if value is None:
        return ("max_features", n_features)
    if value == "sqrt":
        return ("max_features", max(1, int(sqrt(n_features))))
    if value == "log2":
        return ("max_features", max(1, int(log2(n_features))))
    if isinstance(value, numbers.Integral):
        return ("max_features", int(value))
    return ("max_features", max(1, int(value * n_features)))
