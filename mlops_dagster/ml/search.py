"""A search over a training set of prices: its folds, and how they are said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_dagster.errors import refuse
from mlops_dagster.grids import Search
from mlops_dagster.ml.recipes import TrainingSet
from mlops_dagster.modeling.search_results import Folds

if TYPE_CHECKING:
    from mlops_dagster.search import SharedGridSearchCV


def make_search(
    data: TrainingSet, search: Search, *, engine: Any = None, cache: Any = None, progress: Any = None
) -> SharedGridSearchCV:
    """Return the estimator that does the search, ready for ``fit(data.X_train, data.y_train)`` or ``plan``.

    Parameters
    ----------
    data : TrainingSet
        What is searched on; only its training rows are looked at.
    engine, cache, progress
        As :class:`mlops_dagster.search.SharedGridSearchCV` takes them. Without an engine: one thread per core.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If the rows are too few for the folds, or the features for `max_features`.
    """
    from sklearn.ensemble import RandomForestRegressor

    from mlops_dagster.search import SharedGridSearchCV

    most = len(data.features)
    for max_features in search.grid.get("max_features", []):
        if isinstance(max_features, int) and max_features > most:
            cure = f"the {data.recipe} recipe has {most} features."
            raise refuse("grid.max_features", max_features, cure)
    return SharedGridSearchCV(
        RandomForestRegressor(**search.forest, n_jobs=1),
        search.grid,
        scoring=search.scoring,
        n_jobs=-1,
        # The model is built by its own pipeline, with the best parameters.
        refit=False,
        cv=search_folds(data, search),
        engine=engine,
        cache=cache,
        progress=progress,
    )


def search_folds(data: TrainingSet, search: Search) -> Folds:
    """Split the training rows for a search.

    Parameters
    ----------
    data : TrainingSet
        The recipe's order of the training rows decides what "shuffled" is: the article's rows are in random order, so
        that its plain 3-fold is a shuffled one; others are shuffled with the search's seed.
    search : Search
        Scheme, number of folds and gap.

    Returns
    -------
    list of (array, array)
        Places in ``data.X_train`` of each fold's rows to learn from, and to be scored on.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If there are too few rows.
    """
    from sklearn.model_selection import KFold, TimeSeriesSplit

    rows = data.rows("train")
    dates = rows["Date"].to_numpy()
    chronological = bool((dates[1:] > dates[:-1]).all())
    splitter: Any
    if search.cv == "chronological":
        gap = data.horizon if search.gap is None else search.gap
        splitter = TimeSeriesSplit(search.folds, gap=gap)
        order = np.argsort(dates, kind="stable")
    else:
        gap = 0
        # A seed that is searched over can't shuffle, too: candidates would be scored on different rows.
        seed = search.forest.get("random_state", 0)
        splitter = KFold(search.folds, shuffle=chronological, random_state=seed if chronological else None)
        order = np.arange(len(rows))
    try:
        return [(order[train], order[test]) for train, test in splitter.split(order)]
    except ValueError as error:
        cure = f"there are {len(rows)} training rows and the gap is {gap}: {error} Give fewer folds or a smaller gap."
        raise refuse("folds", search.folds, cure) from None


def describe_cv(data: TrainingSet, search: Search) -> str:
    """Say how candidates are scored.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> describe_cv(SimpleNamespace(horizon=1), SimpleNamespace(cv="chronological", folds=3, gap=None))
    '3 folds, each scored on the rows that follow those it learns from, after a gap of 1'
    """
    if search.cv == "chronological":
        gap = data.horizon if search.gap is None else search.gap
        return f"{search.folds} folds, each scored on the rows that follow those it learns from, after a gap of {gap}"
    return f"{search.folds} folds of shuffled rows"
