"""The forest: fitting it, and saying what it is in one digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_dagster.errors import refuse
from mlops_dagster.ml.recipes import TrainingSet

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

    from mlops_dagster.ml.grid_search import Engine

# How a forest is computed or reported, not what it is.
_HOW_ONLY = ("n_jobs", "verbose", "warm_start")
# What decides a prediction. Impurities and sample counts follow from the same rows.
_TREE_ARRAYS = ("children_left", "children_right", "feature", "threshold", "missing_go_to_left", "value")


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
        Grows the trees instead, on a cluster for example, see :mod:`mlops_dagster.ml.grid_search`. The model is the
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
        from mlops_dagster.ml.grid_search import grow_forest

        forest = RandomForestRegressor(**parameters, n_jobs=1)
        grow_forest(forest, training_set.X_train, training_set.y_train, engine=engine)
        return forest
    forest = RandomForestRegressor(**parameters, n_jobs=n_jobs)
    forest.fit(training_set.X_train, training_set.y_train)
    return forest.set_params(n_jobs=1)


def model_digest(model: RandomForestRegressor) -> str:
    """Return a sha256 over what the forest is: its parameters, inputs, and every tree.

    Two models with the same digest make the same predictions. It doesn't depend on the file format, the process or
    the number of cores, as files and pickles do.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestRegressor
        A fitted forest.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    parameters = {name: value for name, value in model.get_params().items() if name not in _HOW_ONLY}
    about = {"class": type(model).__name__, "parameters": parameters, "inputs": list(model.feature_names_in_)}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=lambda value: value.item()).encode())
    for estimator in model.estimators_:
        for name in _TREE_ARRAYS:
            array = np.asarray(getattr(estimator.tree_, name))
            # One layout whatever the machine's byte order, so that equal trees give equal bytes.
            array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(f"{name} {array.dtype.kind}{array.dtype.itemsize} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
