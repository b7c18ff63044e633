"""Any of scikit-learn's scores of what a model answers: of all rows or of some, as often as one likes."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.utils.metaestimators import available_if

from mlops_dagster.errors import MlopsError, refuse
from mlops_dagster.modeling.outputs import Array
from mlops_dagster.modeling.outputs import Model as Model
from mlops_dagster.modeling.outputs import Outputs as Outputs
from mlops_dagster.modeling.outputs import outputs_of as outputs_of
from mlops_dagster.modeling.targets import Label
from mlops_dagster.modeling.training_set import TrainingSet
from mlops_dagster.spec.functions import UserCodeError, calling
from mlops_dagster.spec.model import Declaration

_OF_ALL_LABELS = ("neg_log_loss", "d2_log_loss_score")
_OF_REGRESSION = "sklearn.metrics._regression"


# --------------------------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class Metric:
    """One number that says how good answers are.

    Parameters
    ----------
    name : str
        As people read it: without scikit-learn's ``neg_``.
    declared : str
        As the declaration says it.
    greater_is_better : bool
        Which direction is the better one.
    perfect : float, optional
        What perfect answers have, if that is known.
    function : callable
        From (truth, outputs) to the number.
    """

    name: str
    declared: str
    greater_is_better: bool
    perfect: float | None
    function: Callable[[Array, Outputs], float]

    def measure(self, outputs: Outputs, truth: Array, rows: npt.NDArray[np.intp] | None = None) -> float:
        """Measure answers against the truth.

        Parameters
        ----------
        truth : array of shape (rows,)
            The values, or the classes, see :meth:`TrainingSet.truth`.
        rows : array of int, optional
            Which rows, each as often as it is there. Not given: all. NaN if the metric has no meaning for them, as an
            area under a curve of rows of one class.

        Raises
        ------
        MlopsError
            If it has no meaning for all rows.
        """
        if rows is not None:
            outputs, truth = outputs.take(rows), truth[rows]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UndefinedMetricWarning)
                warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
                measured = self.function(truth, outputs)
        except (ValueError, AttributeError, UserCodeError) as error:  # AttributeError: there are no probabilities
            if rows is not None:
                return float("nan")
            if isinstance(error, UserCodeError):
                raise
            raise MlopsError(f"metrics: {self.declared} can't be measured: {error}") from error
        if rows is None and not np.isfinite(measured):
            raise MlopsError(
                f"metrics: {self.declared} is {measured} on these {len(truth):,} rows; test on more, or on rows of "
                "every class, or choose another."
            )
        return measured

    def better(self, one: float, other: float) -> bool:
        """Whether one number is better than another."""
        return one > other if self.greater_is_better else one < other


def metric_of(
    name: str, declaration: Declaration, function: Callable[..., Any] | None = None, *, place: str = "metrics"
) -> Metric:
    """Return a metric by the name that the declaration says.

    Parameters
    ----------
    name : str
        scikit-learn's name of a score, or ``.module:function``.
    function : callable, optional
        What the latter names: from (truth, outputs) to a number, the larger the better unless it has an attribute
        ``greater_is_better`` that is False.
    place : str
        What a message calls the parameter.

    Raises
    ------
    ParameterError
        If there is no such score, or it is none for the task; the message names those that fit.
    """
    if function is not None:
        better = bool(getattr(function, "greater_is_better", True))
        return Metric(name.rpartition(":")[2], name, better, None, partial(_own, name, function))
    fitting = scores_of(declaration.task)
    if name not in get_scorer_names():
        meant = difflib.get_close_matches(name, fitting, n=1) or difflib.get_close_matches(f"neg_{name}", fitting, n=1)
        raise refuse(place, name, f"there is no such score; {_choices(meant, fitting, place)}")
    if name not in fitting:
        raise refuse(place, name, f"it is no score of a {declaration.task}; {_choices([], fitting, place)}")
    scorer = get_scorer(name)
    lower = name.startswith("neg_")

    def score(truth: Array, outputs: Outputs) -> float:
        asked = _asked(truth, outputs)
        if outputs.probabilities is not None and (name in _OF_ALL_LABELS or len(outputs.labels) > 2):
            scored = over_all_classes(name, asked[0].classes_)(*asked)
        else:
            scored = scorer(*asked)
        return -float(scored) if lower else float(scored)

    perfect = None if name == "positive_likelihood_ratio" else 0.0 if lower else 1.0
    return Metric(name.removeprefix("neg_"), name, not lower, perfect, score)


def over_all_classes(name: str, classes: Sequence[Label]) -> Callable[..., float]:
    """Return one of scikit-learn's scorers; one of probabilities is told all classes.

    scikit-learn's own take the classes from the rows, and fail if these, or the model, have none of one.
    """
    scorer = get_scorer(name)
    asks = scorer._response_method
    of_probabilities = "predict_proba" in ([asks] if isinstance(asks, str) else asks)
    if not (of_probabilities and "labels" in inspect.signature(scorer._score_func).parameters):
        return scorer  # type: ignore[no-any-return]
    return _OverAllClasses(scorer, tuple(classes))


@dataclass(frozen=True)
class _OverAllClasses:
    scorer: Any
    classes: tuple[Label, ...]

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        classes = np.unique(np.asarray(self.classes))
        probabilities = np.asarray(estimator.predict_proba(X))
        known = np.asarray(estimator.classes_)
        if len(known) < len(classes):
            # What the model has never seen it never expects.
            some, probabilities = probabilities, np.zeros((len(probabilities), len(classes)))
            probabilities[:, np.searchsorted(classes, known)] = some
        arguments = {**self.scorer._kwargs, "labels": classes}
        return float(self.scorer._sign * self.scorer._score_func(y, probabilities, **arguments))


def _own(name: str, function: Callable[..., Any], truth: Array, outputs: Outputs) -> float:
    measured = calling(f"metrics {name}", function, truth, outputs)
    if not isinstance(measured, Real):
        raise UserCodeError(f"metrics {name}: it returns a {type(measured).__name__}; return a number.")
    return float(measured)


@cache
def scores_of(task: str) -> list[str]:
    """Return the names of scikit-learn's scores that fit a task."""
    kinds = [(name, get_scorer(name)._score_func.__module__) for name in get_scorer_names()]
    fit = [name for name, module in kinds if (module == _OF_REGRESSION) == (task == "regression")]
    return [name for name in fit if not name.endswith("_samples") and "cluster" not in dict(kinds)[name]]


def check_metrics(metrics: Iterable[Metric], estimator: Any, training_set: TrainingSet) -> None:
    """Refuse, before anything is fitted, a metric that can't be measured of an estimator's answers.

    Raises
    ------
    ParameterError, UserCodeError
        If a metric needs probabilities and the estimator has none, or two classes and there are more; the message
        names those that fit. Also if two have the
        same name, or a function fails.
    """
    metrics, labels = list(metrics), training_set.classes
    names = [metric.name for metric in metrics]
    twice = next((metric for metric in metrics if names.count(metric.name) > 1), None)
    if twice is not None:
        raise refuse("metrics", twice.declared, f"two metrics are called {twice.name}; leave one out, or rename it.")
    if labels is None:
        truth = training_set.truth(training_set.rows("test"))
        answers = full = Outputs(value=np.full(len(truth), training_set.truth(training_set.rows("train")).mean()))
    else:
        truth = np.array(labels * 2, dtype=object)
        sure = (np.tile(np.eye(len(labels)), (2, 1)) + 1) / (len(labels) + 1)
        answers = Outputs(classes=truth, labels=labels, positive=training_set.positive)
        full = replace(answers, probabilities=sure)
        if hasattr(estimator, "predict_proba"):
            answers = full
        elif hasattr(estimator, "decision_function"):
            answers = replace(answers, scores=sure[:, 1] - 0.5 if len(labels) == 2 else sure)

    def fits(name: str, outputs: Outputs) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                get_scorer(name)(*_asked(truth, outputs))
        except (ValueError, AttributeError):
            return False
        return True

    for metric in metrics:
        if metric.declared not in get_scorer_names():
            # A function that fails does so now, and not after the training.
            metric.function(truth, answers if labels else Outputs(value=truth[::-1]))
            continue
        if fits(metric.declared, answers):
            continue
        fitting = [name for name in scores_of(training_set.task) if fits(name, answers)]
        why = (
            f"it can't be measured of {len(labels)} classes" if labels else f"{training_set.column} is no number for it"
        )
        if fits(metric.declared, full):
            why = f"it needs probabilities, and {type(estimator).__name__} has no predict_proba"
        raise refuse("metrics", metric.declared, f"{why}; {_choices([], fitting, 'metrics')}")


# ----------------------------------------------------------------------------- answers, as scikit-learn's scorers ask


class _Values(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Answers by row number."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, rows: Array) -> Any:
        return self.outputs.value[rows[:, 0]]  # type: ignore[index]


class _Classes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers by row number; classes are numbers, and of two the positive one is 1, as scikit-learn's scores expect."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.order = _order(outputs)
        self.classes_ = np.arange(len(self.order))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, rows: Array) -> Any:
        return _codes(self.outputs.predicted, self.outputs)[rows[:, 0]]

    @available_if(lambda self: self.outputs.probabilities is not None)  # type: ignore[untyped-decorator]
    def predict_proba(self, rows: Array) -> Any:
        return self.outputs.probabilities[rows[:, 0]][:, self.order]  # type: ignore[index]

    @available_if(lambda self: self.outputs.scores is not None)  # type: ignore[untyped-decorator]
    def decision_function(self, rows: Array) -> Any:
        scores = self.outputs.scores[rows[:, 0]]  # type: ignore[index]
        if scores.ndim == 1:
            return scores if self.order[-1] == 1 else -scores
        return scores[:, self.order]


def _order(outputs: Outputs) -> list[int]:
    places = list(range(len(outputs.labels)))
    first_is_positive = len(places) == 2 and outputs.positive == outputs.labels[0]
    return places[::-1] if first_is_positive else places


def _codes(classes: Array, outputs: Outputs) -> npt.NDArray[np.int64]:
    ordered = [outputs.labels[place] for place in _order(outputs)]
    return pd.Index(ordered, dtype=object).get_indexer(pd.Index(classes, dtype=object)).astype(np.int64)


def _asked(truth: Array, outputs: Outputs) -> tuple[Any, Array, Array]:
    rows = np.arange(len(truth)).reshape(-1, 1)
    if outputs.value is not None:
        return _Values(outputs), rows, truth
    return _Classes(outputs), rows, _codes(truth, outputs)


def _choices(meant: list[str], fitting: list[str], place: str) -> str:
    own = ", or .module:function" if place == "metrics" else ""
    return f"did you mean {meant[0]}?" if meant else f"choose one of {', '.join(fitting)}{own}."
