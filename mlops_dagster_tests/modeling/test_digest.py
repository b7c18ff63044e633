"""The digest of any estimator: equal in another process and after being stored, different for anything that matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer
from sklearn.utils import all_estimators

from mlops_dagster.modeling.digest import NoDigestError, model_digest
from mlops_dagster.stack.trusted_types import TRUSTED, types_in, untrusted

RNG = np.random.default_rng(0)
X = pd.DataFrame(np.abs(RNG.normal(size=(60, 3))), columns=["a", "b", "c"])
MIXED = X.assign(
    kind=pd.Series(["flat", "house", np.nan] * 20, dtype=object),
    year=X["a"].where(X["a"] > 0.3),
    at=pd.Categorical(["x", "y"] * 30),
)
NUMBERS = X["a"] * 2 + 0.1
CLASSES = np.where(X["a"] > X["a"].median(), "yes", "no").astype(object)
# They want several targets, one feature, or a sub-estimator that says how many rows it needs.
NOT_ONE_TARGET = {"ClassifierChain", "MultiOutputClassifier", "CCA", "IsotonicRegression", "MultiOutputRegressor"}
NOT_ONE_TARGET |= {"MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV"}
NOT_ONE_TARGET |= {"PLSCanonical", "RANSACRegressor", "RegressorChain"}


def pipeline(**parameters):
    encode = ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(), SplineTransformer()), ["a", "year"]),
            ("kind", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=object)),
            ("rest", FunctionTransformer(np.log1p), ["b", "c"]),
        ]
    )
    return make_pipeline(encode, HistGradientBoostingRegressor(random_state=0, max_iter=5, **parameters))


def fitted():
    """Fit every classifier and regressor of scikit-learn's, and pipelines."""
    models = {
        "pipeline": pipeline().fit(MIXED, NUMBERS),
        "categories": HistGradientBoostingRegressor(max_iter=5, categorical_features="from_dtype", random_state=0).fit(
            MIXED[["a", "year", "at"]], NUMBERS
        ),
        "search": GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, scoring="r2", cv=3).fit(X, NUMBERS),
        "boolean": make_pipeline(KNeighborsRegressor(metric="manhattan", algorithm="ball_tree")).fit(X, NUMBERS),
    }
    for kind, inner, y in (("classifier", LogisticRegression, CLASSES), ("regressor", Ridge, NUMBERS)):
        for name, found in all_estimators(type_filter=kind):
            takes = found._get_param_names()
            said = {"estimator": inner()} if "estimator" in takes and "AdaBoost" not in name else {}
            said |= {"estimators": [("a", inner()), ("b", inner())]} if "estimators" in takes else {}
            said |= {"random_state": 0} if "random_state" in takes else {}
            said |= {"n_estimators": 5} if "n_estimators" in takes else {}
            said |= {"max_iter": 20} if name.startswith(("MLP", "HistG")) else {}
            if name not in NOT_ONE_TARGET:
                models[name] = found(**said).fit(X, y)
    return models


def digests():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = fitted()
    return models, {name: model_digest(model) for name, model in models.items()}


@pytest.mark.slow
def test_every_estimator_has_the_same_digest_in_another_process_and_after_being_stored():
    code = "import json; from mlops_dagster_tests.modeling.test_digest import digests; print(json.dumps(digests()[1]))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    ) as other:
        models, here = digests()
        there = json.loads(other.communicate()[0])
    assert there == here
    assert len(here) > 80
    assert len({*here.values()}) == len(here)
    for name, model in models.items():
        stored = skops.io.dumps(model)
        assert not untrusted(types_in(stored)), name
        assert model_digest(skops.io.loads(stored, trusted=TRUSTED)) == here[name], name


def test_what_decides_predictions_changes_the_digest():
    model = pipeline().fit(MIXED, NUMBERS)
    before = model_digest(model)
    assert model_digest(pipeline().fit(MIXED, NUMBERS)) == before
    assert model_digest(model.set_params(histgradientboostingregressor__verbose=1)) == before
    another_row = MIXED.copy()
    another_row.loc[7, "a"] += 1.0
    another_text = MIXED.assign(kind=MIXED["kind"].replace("flat", "flats"))
    others = [
        pipeline().fit(another_row, NUMBERS),
        pipeline().fit(another_text, NUMBERS),
        pipeline().fit(MIXED, NUMBERS + (NUMBERS.index == 3)),
        pipeline(learning_rate=0.2).fit(MIXED, NUMBERS),
        pipeline(),
        KNeighborsRegressor().fit(X, NUMBERS),
        KNeighborsRegressor().fit(X, NUMBERS + (NUMBERS.index == 3) * 1e-12),
        KNeighborsRegressor(weights="distance").fit(X, NUMBERS),
    ]
    assert len({before, *map(model_digest, others)}) == len(others) + 1


def test_how_an_array_lies_in_memory_makes_no_difference():
    array = RNG.normal(size=(4, 3))
    assert model_digest(np.asfortranarray(array)) == model_digest(array)
    assert model_digest(array.astype(">f8")) == model_digest(array)
    assert model_digest(array.T) != model_digest(array)
    assert model_digest(["1"]) != model_digest([1]) != model_digest([True]) != model_digest((True,))


def test_a_forest_that_was_fitted_without_names_has_one_too():
    forest = RandomForestRegressor(n_estimators=2, random_state=0).fit(X.to_numpy(), NUMBERS)
    assert model_digest(forest) != model_digest(RandomForestRegressor(n_estimators=2, random_state=1).fit(X, NUMBERS))


@pytest.mark.parametrize(("held", "why"), [(lambda x: x, "top of a module"), (threading.Lock(), "a _thread.lock has")])
def test_what_nobody_can_compare_is_refused(held, why):
    with pytest.raises(NoDigestError, match=why):
        model_digest(FunctionTransformer(held))
