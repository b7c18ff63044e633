"""The steps in front of an estimator: pipelines and target transformers, fitted once per fold for each setting.

Nothing of what they do is repeated here: scikit-learn's own ``fit`` runs, with a memory as pipelines take it, and what
the last estimator would get is seen by a spy in its place.
"""

from __future__ import annotations

import copy
import numbers
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline

from mlops_dagster.search.once import digest, once_inside

_KEPT_BYTES = 2**30


def path(estimator: Any, *, fitted: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield what an estimator is made of, from the outside to its last step, and what parameters of it begin with.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> nested = TransformedTargetRegressor(make_pipeline("passthrough", make_pipeline(Ridge())))
    >>> [prefix for prefix, _ in path(nested)]
    ['', 'regressor__', 'regressor__pipeline__', 'regressor__pipeline__ridge__']
    """
    prefix = ""
    while True:
        yield prefix, estimator
        if _is_a(Pipeline, estimator) and estimator.steps:
            name, estimator = estimator.steps[-1]
        elif _is_a(TransformedTargetRegressor, estimator) and estimator.regressor is not None:
            name, unfitted = "regressor", estimator.regressor
            estimator = getattr(estimator, "regressor_", unfitted) if fitted else unfitted
        else:
            return
        prefix += f"{name}__"


def last_step(estimator: Any, *, fitted: bool = False) -> Any:
    """Return the estimator at the end of a pipeline, or in a target transformer, or the one that is in none."""
    *_, (_, last) = path(estimator, fitted=fitted)
    return last


def _is_a(kind: type, estimator: Any) -> bool:
    """Whether it is of this class itself, or a stand-in for it; somebody's own subclass may do anything."""
    return type(estimator) is kind or (isinstance(estimator, kind) and type(estimator).__module__ == kind.__module__)


def shallow(estimator: Any, its_class: Any = None) -> Any:
    """Return a shallow copy, of another class if one is given."""
    copied = object.__new__(its_class or type(estimator))
    copied.__dict__.update(estimator.__dict__)
    return copied


def grafted(fitted: Any, wanted: Any, last: Any, mixed: Callable[[Any], Any] | None = None) -> Any:
    """Return a copy of what was fitted, with the parameters of another, and another last step.

    Parameters
    ----------
    fitted, wanted : estimator
        Of the same shape.
    last : estimator
        Takes the place of the last step.
    mixed : callable
        Makes the copies of the pipelines, of the wanted ones. Not given: they are copies of the fitted ones.
    """
    if _is_a(Pipeline, fitted):
        copied = mixed(wanted) if mixed else shallow(fitted)
        (name, inner), inner_wanted = fitted.steps[-1], wanted.steps[-1][1]
        copied.steps = [*fitted.steps[:-1], (name, grafted(inner, inner_wanted, last, mixed))]
        return copied
    if _is_a(TransformedTargetRegressor, fitted):
        copied = shallow(wanted)
        learned = {name: value for name, value in vars(fitted).items() if name not in vars(wanted)}
        copied.__dict__.update(learned)
        copied.regressor_ = grafted(fitted.regressor_, wanted.regressor, last, mixed)
        if hasattr(copied.regressor_, "feature_names_in_"):
            copied.feature_names_in_ = copied.regressor_.feature_names_in_
        return copied
    return last


def why_random(estimator: Any, *, but: str = "") -> str:
    """Return which random state isn't an integer, so that no two fits are alike; empty if there is none.

    Parameters
    ----------
    but : str
        Parameters that begin with it are given their seeds.
    """
    for name, value in estimator.get_params(deep=True).items():
        seeded = but and name.startswith(but)
        if f"__{name}".endswith("__random_state") and not seeded and not isinstance(value, numbers.Integral):
            return f"{name} isn't an integer, so no two fits are alike"
    return ""


class Settings:
    """The settings of the steps in front of the last one that candidates ask for, each once.

    Attributes
    ----------
    estimator : estimator
        What candidates are set on.
    parameters : list of mapping
        Of each setting, as ``set_params`` of the estimator takes them.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        *_, (self._prefix, _) = path(estimator)
        self.parameters: list[Mapping[str, Any]] = []
        self._numbers: dict[Any, int] = {}
        self._read: dict[Any, tuple[str, Any, int, str]] = {}

    def of(self, candidate: Mapping[str, Any]) -> tuple[Any, dict[str, Any], int, str]:
        """Return a candidate's last step, the parameters still to be set on it, its setting's number, and a reason.

        The reason says why two fits of the steps in front would differ; it is empty if they wouldn't.
        """
        begin = self._prefix
        if not begin:
            self.parameters = [{}]
            return self.estimator, dict(candidate), 0, ""
        outer = {name: value for name, value in candidate.items() if not name.startswith(begin)}
        prefix, last, number, why = self._of(outer)
        if prefix != begin:  # the last step is another pipeline
            _, last, number, why = self._of(candidate)
            return last, {}, number, why
        return last, {name[len(begin) :]: candidate[name] for name in candidate.keys() - outer.keys()}, number, why

    def _of(self, parameters: Mapping[str, Any]) -> tuple[str, Any, int, str]:
        # The candidates of a grid have the same objects for values.
        key = tuple((name, id(value)) for name, value in parameters.items())
        if key not in self._read:
            wanted = clone(self.estimator).set_params(**clone(dict(parameters), safe=False))
            *_, (prefix, last) = path(wanted)
            wanted.set_params(**{prefix[:-2]: None})
            number = self._numbers.setdefault(digest(wanted) or key, len(self.parameters))
            if number == len(self.parameters):
                self.parameters.append(parameters)
            self._read[key] = prefix, last, number, why_random(wanted)
        return self._read[key]


class Transformers:
    """Fitted transformers of one fold, and what they made of its training rows; the oldest go where it is too much.

    Parameters
    ----------
    rows_are_scored : bool
        Whether training rows are scored afterwards: then those that a transformer changes in place count as they are
        left, and it has to do so for each candidate, as in ``GridSearchCV``.
    """

    def __init__(self, rows_are_scored: bool) -> None:
        self._rows_are_scored = rows_are_scored
        self._kept: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()
        self._locks: dict[Any, threading.Lock] = {}
        self._lock = threading.Lock()

    def once(self, key: Any, X: Any, make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """Return what is there under a key, made of these rows the first time that it is asked for."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            made = self._kept.get(key)
            if made is None:
                before = digest(X) if self._rows_are_scored else None
                made = make()
                if self._rows_are_scored and (before is None or before != digest(X)):
                    return made
        with self._lock:
            self._kept[key] = made
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(_bytes(X) for X, _ in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return own(made[0]), made[1]  # whoever comes next may work in place

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what is there under a key, and is no rows; made the first time that it is asked for."""

        def sized() -> tuple[int, Any]:
            made = make()
            return len(pickle.dumps(made)), made

        return self.once(key, None, sized)[1]


def _bytes(X: Any) -> int:
    if isinstance(X, int):  # of what is no rows
        return X
    if hasattr(X, "memory_usage"):
        return int(X.memory_usage().sum())
    return int(getattr(X, "nbytes", 0) or getattr(getattr(X, "data", None), "nbytes", 0))


class _Memory:
    """What one fit takes for its pipelines' ``memory``: knows a transformer by all that come before it.

    Parameters
    ----------
    begin : tuple
        What the rows depend on before the first transformer.
    """

    def __init__(self, transformers: Transformers, begin: Sequence[Any]) -> None:
        self._transformers = transformers
        self._so_far: tuple[Any, ...] | None = tuple(begin)

    def cache(self, function: Callable[..., tuple[Any, Any]], **_: Any) -> Callable[..., tuple[Any, Any]]:
        """Return a function that fits a transformer once, as joblib's ``Memory`` does."""

        def once(transformer: Any, X: Any, y: Any, *args: Any, **others: Any) -> tuple[Any, Any]:
            key = None if why_random(transformer) else digest((transformer, others.get("params")))
            before = self._so_far
            self._so_far = None if key is None or before is None else (*before, key)
            if self._so_far is None:
                return function(transformer, X, y, *args, **others)

            def make() -> tuple[Any, Any]:
                with once_inside(transformer, lambda key, inner: self._transformers.keep((before, key), inner)):
                    return function(transformer, X, y, *args, **others)

            return self._transformers.once(self._so_far, X, make)

        return once

    def __deepcopy__(self, memo: Any) -> _Memory:
        return self  # a target transformer clones what it fits


def remembering(estimator: Any, transformers: Transformers) -> Any:
    """Let the next fit of an estimator take transformers that are fitted already; it leaves no trace."""

    def fit(X: Any, *y: Any, **params: Any) -> Any:
        del estimator.fit
        steps = [step for _, step in path(estimator)]
        pipelines = [step for step in steps if _is_a(Pipeline, step) and step.memory is None]
        targets = [digest(_alone(step)) for step in steps if _is_a(TransformedTargetRegressor, step)]
        if not pipelines or None in targets:
            return estimator.fit(X, *y, **params)
        memory = _Memory(transformers, targets)
        for pipeline in pipelines:
            pipeline.memory = memory
        try:
            return estimator.fit(X, *y, **params)
        finally:
            for _, step in [*path(estimator), *path(estimator, fitted=True)]:
                if getattr(step, "memory", None) is memory:
                    step.memory = None

    estimator.fit = fit
    return estimator


def _alone(target: Any) -> Any:
    alone = shallow(target)
    alone.regressor = None
    return alone


def own(X: Any) -> Any:
    """Return rows that can be changed."""
    if isinstance(X, np.ndarray):  # pandas' frames have flags as well, and no order
        return X.copy(order="K")
    return X.copy() if hasattr(X, "copy") else copy.deepcopy(X)


class Seen(Exception):  # noqa: N818 - nothing is wrong
    """A spy was asked to predict these rows."""

    def __init__(self, X: Any) -> None:
        self.X = X


class _Spy:
    """Mixed into the class of a last step: sees what that would get, and does nothing."""

    real: Any
    seen: tuple[Any, Any, dict[str, Any]]

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        self.seen = X, y, params
        return self

    def predict(self, X: Any) -> Any:
        raise Seen(X)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Any:
        return self  # a target transformer fits a clone

    def get_metadata_routing(self) -> Any:
        return self.real.get_metadata_routing()


def as_predicted(estimator: Any, X: Any) -> Any:
    """Return the rows that the last step would be asked to predict."""
    try:
        estimator.predict(X)
    except Seen as seen:
        return seen.X
    raise AssertionError("a prediction without its last step")


def spied(estimator: Any) -> tuple[Any, Any]:
    """Return an estimator with a spy for its last step, and the spy."""
    *_, (prefix, last) = path(estimator)
    spy = shallow(last, type(type(last).__name__, (_Spy, type(last)), {"__module__": type(last).__module__}))
    spy.real = last
    return (estimator.set_params(**{prefix[:-2]: spy}) if prefix else spy), spy
