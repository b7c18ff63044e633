"""Every score of scikit-learn by its name, measured of stored answers, is what scikit-learn measures of the model."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, PoissonRegressor, RidgeClassifier
from sklearn.metrics import get_scorer, log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.modeling.metrics import check_metrics, metric_of, outputs_of, scores_of
from mlops_dagster.modeling.outputs import Outputs
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster_tests.modeling.conftest import declare, lagged


@pytest.mark.parametrize(
    ("positive", "model"), [("malignant", LogisticRegression(C=0.01)), ("benign", RidgeClassifier())]
)
def test_every_score_of_two_classes(positive, model, cancer):
    declaration = declare(cancer, {"column": "outcome", "positive": positive})
    made = make_training_set(declaration, cancer)
    # scikit-learn itself scores classes 0 and 1; ours are texts.
    numbers = (made.y_train == positive).astype(int)
    reference = make_pipeline(StandardScaler(), clone(model)).fit(made.X_train, numbers)
    ours = make_pipeline(StandardScaler(), model).fit(made.X_train, made.y_train)
    rows = made.rows("test")
    outputs, truth = outputs_of(ours, made, rows), made.truth(rows)
    measured = 0
    for name in scores_of("classification"):
        metric = metric_of(name, declaration)
        try:
            check_metrics([metric], ours, made)
        except ParameterError:
            assert not hasattr(ours, "predict_proba")
            continue
        expected = get_scorer(name)(reference, made.X_test, (made.y_test == positive).astype(int))
        assert metric.measure(outputs, truth) == pytest.approx(abs(expected), abs=1e-9), name
        assert metric.greater_is_better == (not name.startswith("neg_"))
        some = np.arange(100)
        expected = get_scorer(name)(reference, made.X_test[:100], (made.y_test[:100] == positive).astype(int))
        assert metric.measure(outputs, truth, some) == pytest.approx(abs(expected), abs=1e-9), name
        measured += 1
    assert measured > (25 if hasattr(ours, "predict_proba") else 15)


def test_every_score_of_three_classes(iris):
    declaration = declare(iris, "outcome")
    made = make_training_set(declaration, iris)
    model = RandomForestClassifier(5, max_depth=2, random_state=0).fit(made.X_train, made.y_train)
    rows = made.rows("test")
    outputs, truth = outputs_of(model, made, rows), made.truth(rows)
    measured = []
    for name in scores_of("classification"):
        metric = metric_of(name, declaration)
        with contextlib.suppress(ParameterError):
            check_metrics([metric], model, made)
            measured.append(name)
        if name not in measured:
            continue
        expected = get_scorer(name)(model, made.X_test, made.y_test)
        assert metric.measure(outputs, truth) == pytest.approx(abs(expected), abs=1e-9), name
    with pytest.raises(ParameterError, match=r"f1.*3 classes; choose one of accuracy"):
        check_metrics([metric_of("f1", declaration)], model, made)
    assert {"accuracy", "f1_macro", "roc_auc_ovr", "neg_log_loss", "top_k_accuracy"} <= set(measured)
    assert not {"f1", "roc_auc"} & set(measured)


def test_every_score_of_numbers_on_the_scale_of_what_is_judged(demand):
    target = {"column": "sales", "horizon": 7, "learn": "return"}
    declaration = declare(
        demand, target, features=".f:f", time="day", group="shop", split={"kind": "chronological"}
    )  # fmt: skip
    made = make_training_set(declaration, demand.dropna(), features=lagged)
    model = PoissonRegressor().fit(made.X_train, made.y_train + 1)
    model.intercept_ -= 1
    rows = made.rows("test")
    outputs, truth = outputs_of(model, made, rows), made.truth(rows)

    class Value(RegressorMixin, BaseEstimator):
        """The forecasts as scikit-learn's scorers ask for them."""

        def predict(self, X):
            return rows["current"].to_numpy() * (1 + model.predict(X))

    for name in scores_of("regression"):
        expected = get_scorer(name)(Value(), made.X_test, rows["truth"])
        assert metric_of(name, declaration).measure(outputs, truth) == pytest.approx(abs(expected)) or name == "r2"


def cost(truth, outputs):
    """What wrong forecasts cost: too few are three times as dear."""
    return float(np.where(outputs.value < truth, 3 * (truth - outputs.value), outputs.value - truth).mean())


cost.greater_is_better = False


def test_a_function_of_the_users_own(diabetes):
    declaration = declare(diabetes, "outcome")
    made = make_training_set(declaration, diabetes)
    rows = made.rows("test")
    outputs = outputs_of(PoissonRegressor().fit(made.X_train, made.y_train), made, rows)
    metric = metric_of(".metrics:cost", declaration, cost)
    assert (metric.name, metric.greater_is_better, metric.better(1.0, 2.0)) == ("cost", False, True)
    assert metric.measure(outputs, made.truth(rows)) == cost(made.truth(rows), outputs)
    broken = metric_of(".metrics:broken", declaration, lambda truth, outputs: truth["value"])
    with pytest.raises(MlopsError, match=r"metrics .metrics:broken: .*test_metrics.py:\d+: IndexError"):
        broken.measure(outputs, made.truth(rows))
    for function, said in (
        (lambda truth, outputs: truth["value"], "IndexError"),
        (print, "returns a NoneType; return"),
    ):
        with pytest.raises(MlopsError, match=said):
            check_metrics([metric_of(".metrics:broken", declaration, function)], PoissonRegressor(), made)
    below_0 = make_training_set(declaration, diabetes.assign(outcome=-diabetes["outcome"]))
    with pytest.raises(ParameterError, match=r"'neg_mean_poisson_deviance' .*outcome is no number for it; choose one"):
        check_metrics([metric_of("neg_mean_poisson_deviance", declaration)], PoissonRegressor(), below_0)


def test_scores_that_dont_fit_are_refused_before_any_work(cancer, diabetes):
    declaration = declare(cancer, "outcome")
    for name, said in (
        ("r2", "it is no score of a classification; choose one of accuracy, average_precision"),
        ("acuracy", r"there is no such score; did you mean accuracy\?"),
        ("log_loss", r"did you mean neg_log_loss\?"),
        ("rand_score", "no score of a classification"),
    ):
        with pytest.raises(ParameterError, match=said):
            metric_of(name, declaration)
    with pytest.raises(ParameterError, match=r"no score of a regression; choose one of .*neg_mean_absolute_error"):
        metric_of("f1", declare(diabetes, "outcome"))
    made = make_training_set(declaration, cancer)
    with pytest.raises(
        ParameterError, match=r"neg_log_loss.*RidgeClassifier has no predict_proba; choose one of"
    ) as no:
        check_metrics([metric_of("neg_log_loss", declaration)], RidgeClassifier(), made)
    offered = str(no.value).partition("choose one of")[2]
    assert "roc_auc" in offered  # the decision function is enough for it
    assert "brier" not in offered


def test_rows_of_one_class_have_no_area_under_a_curve(cancer):
    declaration = declare(cancer, "outcome")
    made = make_training_set(declaration, cancer)
    rows = made.rows("test")
    outputs = outputs_of(RandomForestClassifier(3, random_state=0).fit(made.X_train, made.y_train), made, rows)
    truth, area = made.truth(rows), metric_of("roc_auc", declaration)
    benign = np.flatnonzero(truth == "benign")
    assert np.isnan(area.measure(outputs, truth, benign))
    with pytest.raises(MlopsError, match=r"roc_auc is nan on these .* rows of every class"):
        area.measure(outputs.take(benign), truth[benign])


def test_log_loss_of_rows_that_have_none_of_a_class():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]])
    truth = np.array(["a", "b", "b"], dtype=object)
    outputs = Outputs(classes=truth, probabilities=probabilities, labels=("a", "b", "c"))

    measured = metric_of("neg_log_loss", SimpleNamespace(task="classification")).measure(outputs, truth)

    assert measured == log_loss(truth, probabilities, labels=["a", "b", "c"])
