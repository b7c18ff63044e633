"""One forest, put together from blocks of trees that were grown anywhere, bit for bit what ``fit`` gives."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlops_dagster.search.cache import Arrays, SearchCache, open_cache
from mlops_dagster.search.canonical import ForestReader
from mlops_dagster.search.data import NotForTreesError, SearchData
from mlops_dagster.search.engine import Engine, LocalEngine
from mlops_dagster.search.growing import FORESTS, tree_seeds
from mlops_dagster.search.schedule import entry_key
from mlops_dagster.search.units import Failed, Trees, TreesUnit

_BLOCK = 32  # trees


def grow_forest(
    forest: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    engine: Engine | None = None,
    cache: Any = None,
    grown: Callable[[int], object] | None = None,
) -> Any:
    """Fit a forest by growing blocks of its trees on an engine.

    Parameters
    ----------
    forest : estimator
        Random forest or extra trees, regressor or classifier. Anything else is fitted by its own ``fit``, and so is a
        forest without an integer ``random_state``, or with ``oob_score``.
    X, y, sample_weight : array-like
        As ``forest.fit`` takes them.
    engine : Engine, optional
        Where trees grow. Default: one thread per core.
    cache : SearchCache or path, optional
        Where trees are kept, as numbers.
    grown : callable, optional
        Is told how many trees were grown and not found in the cache.

    Returns
    -------
    estimator
        `forest`, fitted, the same as ``forest.fit(X, y)`` would leave it.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> X, y = [[0], [1], [2], [3]], [0, 1, 4, 9]
    >>> forest = grow_forest(RandomForestRegressor(n_estimators=50, random_state=0), X, y)
    >>> bool((forest.predict(X) == RandomForestRegressor(n_estimators=50, random_state=0).fit(X, y).predict(X)).all())
    True
    """
    reader = ForestReader(forest) if type(forest) in FORESTS else None
    key = None if reader is None else reader.read({}, len(y))
    if key is None or isinstance(key, str) or key.n_trees == 1 or forest.oob_score:
        return forest.fit(X, y) if sample_weight is None else forest.fit(X, y, sample_weight=sample_weight)

    # Its own fit grows the first tree: so everything but the trees is scikit-learn's, errors included.
    n_estimators = forest.n_estimators  # as it was given, which may be numpy's integer
    forest.n_estimators = 1
    try:
        forest.fit(X, y, sample_weight=sample_weight)
    finally:
        forest.n_estimators = n_estimators
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    rows = np.arange(len(y))
    data = SearchData(copy.copy(forest), X, y, [(rows, rows[:0])], weights)
    data.estimator.__dict__.pop("estimators_")
    blocks = _blocks(key.n_trees)
    kept = open_cache(cache)
    depends = (*key.group, *filter(None, key.limit))  # a ccp_alpha only where there is one, as older caches have it
    try:
        entry = (
            ""
            if kept is None
            else entry_key(data.fold(0).rows.digest(), type(forest), depends, int(forest.random_state))
        )
    except NotForTreesError:
        kept, entry = None, ""

    parameters = forest.get_params(deep=False)
    seed = int(forest.random_state)
    first, trees = forest.estimators_[0], {0: forest.estimators_[0]}
    units = []
    for start, stop in blocks:
        found = None if kept is None else _read(kept, entry, first, start, stop, seed)
        if found is None:
            units.append(TreesUnit(0, type(forest), parameters, seed, start, stop))
        else:
            trees |= dict(enumerate(found, start))

    receiving = threading.Lock()

    def receive(number: int, result: Any) -> None:
        if isinstance(result, Failed):
            raise result.error
        if isinstance(result, Trees):
            with receiving:
                trees.update(enumerate(result.trees, result.start))
            if kept is not None:
                _write(kept, entry, result.start, result.trees)

    if units:
        (engine or LocalEngine(-1)).run(units, data, receive)
    if grown is not None:
        grown(1 + sum(unit.trees for unit in units))
    forest.estimators_ = [trees[number] for number in range(key.n_trees)]
    return forest


def _blocks(n_trees: int) -> list[tuple[int, int]]:
    """Cut trees 1 to n - 1 into blocks: small enough for balance, and the same for every number of trees."""
    return [(start, min(start + _BLOCK, n_trees)) for start in range(1, n_trees, _BLOCK)]


def _write(cache: SearchCache, key: str, start: int, trees: Sequence[Any]) -> None:
    states = [tree.tree_.__getstate__() for tree in trees]
    arrays: Arrays = {
        "nodes": np.concatenate([state["nodes"] for state in states]),
        "values": np.concatenate([state["values"] for state in states]),
        "counts": np.array([state["node_count"] for state in states]),
        "depths": np.array([state["max_depth"] for state in states]),
    }
    cache.write(key, f"trees-{start}-{start + len(trees)}", {}, arrays)


def _read(cache: SearchCache, key: str, like: Any, start: int, stop: int, seed: int) -> list[Any] | None:
    entry = cache.read(key, f"trees-{start}-{stop}")
    if entry is None:
        return None
    _, arrays = entry
    trees = []
    begin = 0
    empty, arguments, _ = like.tree_.__reduce__()
    for number, tree_seed in enumerate(tree_seeds(seed, stop)[start:]):
        end = begin + int(arrays["counts"][number])
        state = {
            "max_depth": int(arrays["depths"][number]),
            "node_count": end - begin,
            "nodes": np.ascontiguousarray(arrays["nodes"][begin:end]),
            "values": np.ascontiguousarray(arrays["values"][begin:end]),
        }
        tree = copy.copy(like)
        tree.random_state = tree_seed
        tree.tree_ = empty(*arguments)
        tree.tree_.__setstate__(state)
        trees.append(tree)
        begin = end
    return trees
