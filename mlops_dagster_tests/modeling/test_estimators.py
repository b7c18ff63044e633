"""From a declaration to an estimator: what it may say, what scikit-learn allows, and what is refused before a call."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import all_estimators

from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.estimators import make_estimator, narrowed_parameters
from mlops_dagster_tests.modeling.conftest import declare

TABLE = pd.DataFrame({"a": np.arange(20.0), "y": np.arange(20.0)})
FOREST = {"class": "sklearn.ensemble.RandomForestRegressor"}
RIDGE = {"class": "sklearn.linear_model.Ridge"}
SCALED = {
    "class": "sklearn.pipeline.Pipeline",
    "arguments": {"steps": [["scale", {"class": "sklearn.preprocessing.StandardScaler"}], ["model", RIDGE]]},
}
HOSTILE = {"class": "subprocess.Popen", "arguments": {"args": ["touch", "touched"]}}


def said(estimator, parameters=None, task="regression", folder=None):
    declaration = declare(TABLE, "y", estimator=estimator, parameters=parameters or {})
    declaration = declaration.model_copy(update={"task": task})
    return declaration if folder is None else declaration.at(folder)


def test_a_class_with_parameters():
    parameters = {"max_features": {"default": 1.0}, "depth": {"default": 5, "maximum": 9, "argument": "max_depth"}}
    declaration = said({**FOREST, "arguments": {"n_estimators": 7}}, parameters)
    assert [one.domain for one in narrowed_parameters(declaration)] == [
        "a number above 0, above 1 a whole one",
        "an integer from 1 to 9",
    ]
    forest = make_estimator(declaration, {"max_features": 2.0})
    # A count is an integer, a share a float, and the seed is said: nothing about a model is left to chance.
    assert (forest.max_features, type(forest.max_features)) == (2, int)
    assert (forest.max_depth, forest.n_estimators, forest.random_state) == (5, 7, 0)
    assert type(make_estimator(declaration, {"max_features": 1}).max_features) is float
    assert make_estimator(declaration, {}, n_jobs=2).n_jobs == 2


def test_a_whole_pipeline_in_yaml():
    parameters = {"alpha": {"default": 1.0, "argument": "model__alpha"}}
    made = make_estimator(said(SCALED, parameters), {"alpha": 0})
    assert str(made.steps) == "[('scale', StandardScaler()), ('model', Ridge(alpha=0.0, random_state=0))]"
    cv = {"class": "sklearn.model_selection.KFold", "arguments": {"shuffle": True}}
    calibrated = {"class": "sklearn.calibration.CalibratedClassifierCV", "arguments": {"cv": cv}}
    assert make_estimator(said(calibrated, task="classification"), {}).cv.random_state == 0


def test_a_function_beside_the_declaration(tmp_path):
    (tmp_path / "model.py").write_text(
        "from sklearn.linear_model import Ridge\n\ndef make(alpha, tol=0.1):\n    return Ridge(alpha, tol=tol)\n\n"
        "def text(alpha):\n    return 'a text'\n\ndef needs(alpha, beta):\n    pass\n"
    )
    parameters = {"strength": {"default": 1.0, "argument": "alpha"}}
    declaration = said({"function": ".model:make"}, parameters, folder=tmp_path)
    assert make_estimator(declaration, {"strength": 2.0}).get_params()["alpha"] == 2.0
    with pytest.raises(ParameterError, match=r"estimator.alpha=-1.0 \(float\): .model:make makes a Ridge that takes"):
        make_estimator(declaration, {"strength": -1.0})
    for function, cure in (
        ("text", r"estimator.function='.model:text' .* is no estimator \(str\)"),
        ("needs", "it needs beta; declare it in parameters"),
        ("mke", "did you mean make"),
    ):
        with pytest.raises(ParameterError, match=cure):
            make_estimator(said({"function": f".model:{function}"}, parameters, folder=tmp_path), {})
    unknown = said({"function": ".model:make"}, {"alpa": {"default": 1.0}}, folder=tmp_path)
    with pytest.raises(ParameterError, match=r"parameters.alpa='alpa' .*takes no alpa; did you mean alpha"):
        narrowed_parameters(unknown)


@pytest.mark.parametrize(
    ("estimator", "parameters", "message"),
    [
        (
            FOREST,
            {"max_depth": {"default": 0}},
            r"parameters.max_depth.default=0 \(int\): give an integer of at least 1",
        ),
        (FOREST, {"max_features": {"default": 2.5}}, r"default=2.5 \(float\): give a number above 0, above 1 a whole"),
        (FOREST, {"max_depth": {"default": 3.5}}, r"max_depth.type='number' .*takes an int in the range \[1, inf\)"),
        (FOREST, {"criterion": {"default": "x"}}, "give one of absolute_error, poisson, squared_error"),
        (FOREST, {"criterion": {"default": None, "choices": ["x"], "type": "text"}}, "choices='x'"),
        (FOREST, {"bootstrap": {"default": 1}}, "parameters.bootstrap.type='integer' .*takes an instance of"),
        (FOREST, {"max_dpth": {"default": 3}}, "has no parameter max_dpth; did you mean max_depth"),
        (FOREST, {"n_jobs": {"default": 3}}, "how many cores"),
        (SCALED, {"alpha": {"default": 1.0}}, "has no parameter alpha; did you mean model__alpha"),
        (SCALED, {"alpha": {"default": -1.0, "argument": "model__alpha"}}, "give a number of at least 0"),
        ({**FOREST, "arguments": {"max_dept": 3}}, {}, r"estimator.arguments.max_dept=3 .*did you mean max_depth"),
        (
            {**FOREST, "arguments": {"max_depth": "a"}},
            {},
            r"estimator.max_depth='a' \(str\): RandomForestRegressor",
        ),
        ({**FOREST, "arguments": {"n_jobs": 3}}, {}, "how many cores"),
        ({"class": "sklearn.pipeline.Pipeline"}, {}, "Pipeline needs steps"),
        ({"class": "sklearn.ensemble.RandomForestRegresor"}, {}, "did you mean RandomForestRegressor"),
        ({"class": "nowhere.Forest"}, {}, "there is no module nowhere; install it"),
        ({"class": "sklearn.ensemble.RandomForestClassifier"}, {}, "is no regressor; name one, or change the task"),
        ({"class": "sklearn.cluster.KMeans"}, {}, "KMeans is no regressor"),
        ({"class": "sklearn.datasets.load_iris"}, {}, "it is no estimator"),
        ({"class": "os.system"}, {}, "estimator.class='os.system' .*it is no estimator"),
        (HOSTILE, {}, "it is no estimator"),
        (
            {"class": "sklearn.pipeline.Pipeline", "arguments": {"steps": [["x", HOSTILE]]}},
            {},
            r"steps.0.1.class='su",
        ),
    ],
)
def test_what_is_refused(estimator, parameters, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=message):
        make_estimator(said(estimator, parameters), {})
    assert not list(tmp_path.iterdir())


def test_every_classifier_and_regressor_can_be_declared():
    for task, kind, inner in (
        ("classification", "classifier", "LogisticRegression"),
        ("regression", "regressor", "Ridge"),
    ):
        for name, found in all_estimators(type_filter=kind):
            takes = found._get_param_names()
            one = {"class": f"sklearn.linear_model.{inner}"}
            arguments = {"estimator": one} if "estimator" in takes and "AdaBoost" not in name else {}
            arguments |= {"estimators": [["a", one]]} if "estimators" in takes else {}
            declaration = said({"class": f"{found.__module__}.{name}", "arguments": arguments}, task=task)
            assert type(make_estimator(declaration, {})) is found
