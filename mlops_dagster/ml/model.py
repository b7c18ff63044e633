"""Fitting the forest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse
from mlops_dagster.ml.recipes import TrainingSet

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

    from mlops_dagster.search import Engine


def fit_forest(
    training_set: TrainingSet,
    parameters: Mapping[str, Any],
    *,
    n_jobs: int | None = 1,
    engine: Engine | None = None,
) -> RandomForestRegressor:
    """Fit a random forest to the training rows.

    Parameters
    ----------
    parameters : mapping
        Given to ``RandomForestRegressor`` exactly as they are, see
        :func:`mlops_dagster.pipelines.resolve_forest`.
    n_jobs : int, optional
        How many trees are grown at the same time; -1 means one per core. The model is the same for every number.
    engine : Engine, optional
        Grows the trees instead, on a cluster for example, see :mod:`mlops_dagster.search`. The model is the
        same.

    Returns
    -------
    sklearn.ensemble.RandomForestRegressor
        Fitted, its ``n_jobs`` set to 1: several threads add up the trees' predictions in any order, which changes the
        last digits from call to call.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If `max_features` is more than there are features.
    """
    from sklearn.ensemble import RandomForestRegressor

    most = len(training_set.features)
    max_features = parameters.get("max_features")
    if isinstance(max_features, int) and max_features > most:
        # scikit-learn would quietly use all of them, and the run would be logged with a number that isn't true.
        raise refuse("max_features", max_features, f"the {training_set.recipe} recipe has {most} features.")
    if engine is not None:
        from mlops_dagster.search import grow_forest

        forest = RandomForestRegressor(**parameters, n_jobs=1)
        grow_forest(forest, training_set.X_train, training_set.y_train, engine=engine)
        return forest
    forest = RandomForestRegressor(**parameters, n_jobs=n_jobs)
    forest.fit(training_set.X_train, training_set.y_train)
    return forest.set_params(n_jobs=1)
