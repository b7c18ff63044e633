"""Growing exactly the trees that a forest would have, any of them, anywhere, in any order.

Tree i of a forest depends on the data, the parameters and its own seed, and its seed is the i-th draw from the forest's
random state.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.utils import get_tags

from mlops_dagster.search.data import NotForTreesError, Rows
from mlops_dagster.search.fronts import shallow
from mlops_dagster.search.rewire import knows, rewired

SIZE = "n_estimators"
"""The parameter that says how many trees a forest has; more of them are never worse but by chance."""
FORESTS = (RandomForestRegressor, RandomForestClassifier, ExtraTreesRegressor, ExtraTreesClassifier)

NO_LIMIT = int(np.iinfo(np.int32).max)
"""The depth limit that ``max_depth=None`` stands for."""

Limit = tuple[int, float]
"""The depth limit that a tree is grown under, and the ``ccp_alpha`` that it is pruned by."""


def tree_seeds(random_state: int, n_trees: int) -> list[int]:
    """Return the seeds of a forest's first trees.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> forest = RandomForestRegressor(n_estimators=3, random_state=7).fit([[0], [1]], [0, 1])
    >>> tree_seeds(7, 3) == [tree.random_state for tree in forest.estimators_]
    True
    """
    draws = np.random.RandomState(random_state)
    # One draw of n equals n draws of one; scikit-learn's warm start relies on it too.
    seeds: list[int] = draws.randint(np.iinfo(np.int32).max, size=n_trees).tolist()
    return seeds


class _GivenSeeds:
    """Mixed into a forest: its trees take the seeds that they are given, and cost no clone each."""

    _seeds: Iterator[int]
    _template: Any = None

    def _make_estimator(self, append: bool = True, random_state: Any = None) -> Any:
        if self._template is None:
            # Seeds are set below, so none is drawn here.
            self._template = super()._make_estimator(append=False)  # type: ignore[misc]
        tree = copy.copy(self._template)
        tree.random_state = next(self._seeds)
        return tree


@cache
def _grower_class(forest_class: Any) -> Any:
    about = {"__module__": forest_class.__module__, "fit": _without_joblib(forest_class.fit)}
    return type(forest_class.__name__, (_GivenSeeds, forest_class), about)


def _without_joblib(fit: Any) -> Any:
    """Return scikit-learn's own ``fit`` of a forest with a plain loop over its trees.

    joblib's loop, as scikit-learn wraps it, sets the process's warning filters anew for every tree: that takes the
    interpreter lock from the other threads, and two threads that do it at once see each other's half-set filters.
    """
    others = {"Parallel": lambda **_: _run_all, "delayed": lambda call: partial(partial, call)}
    return rewired(fit, **others) if knows(fit, *others) else fit


def _run_all(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]


def pruned(tree: Any, ccp_alpha: float) -> Any:
    """Return a tree that was grown whole as it is for a ``ccp_alpha``; scikit-learn prunes what is grown."""
    if not ccp_alpha:
        return tree
    copied = shallow(tree)
    copied.ccp_alpha = ccp_alpha
    copied._prune_tree()  # puts another tree in the place of this one
    return copied


def grow(
    forest_class: type, parameters: Mapping[str, Any], seeds: Sequence[int], max_depth: int, rows: Rows
) -> list[Any]:
    """Grow one tree for each seed.

    Parameters
    ----------
    forest_class : type
        One of `FORESTS`.
    parameters : mapping
        The forest's parameters; its number of trees, depth limit and seed are replaced, and it has no ``oob_score``.
    seeds : sequence of int
        See :func:`tree_seeds`.
    max_depth : int
        The depth limit, `NO_LIMIT` for none.

    Returns
    -------
    list of sklearn.tree.BaseDecisionTree
        In the order of the seeds.

    Raises
    ------
    NotForTreesError
        If these rows have missing values and this forest wouldn't predict them; and whatever ``fit`` raises.
    """
    grower = _grower_class(forest_class)(
        **{
            **parameters,
            "n_estimators": len(seeds),
            "max_depth": None if max_depth == NO_LIMIT else max_depth,
            "random_state": 0,
            "oob_score": False,
            "n_jobs": 1,
            "verbose": 0,
        }
    )
    if rows.has_nan and (parameters["monotonic_cst"] is not None or not get_tags(grower).input_tags.allow_nan):
        raise NotForTreesError("this forest refuses to predict rows with missing values")
    grower._seeds = iter(seeds)
    # scikit-learn's own fit: whatever it does to rows, weights and classes is done by it, not by a copy of it.
    grower.fit(rows.X, rows.y, sample_weight=rows.sample_weight)
    trees: list[Any] = grower.estimators_
    return trees
