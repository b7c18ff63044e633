"""The steps in front of an estimator: pipelines and target transformers, fitted once per fold for each setting.

Nothing of what they do is repeated here: scikit-learn's own ``fit`` runs, with a memory as pipelines take it, and what
the last estimator would get is seen by a spy in its place.
"""

from __future__ import annotations

import copy
import numbers
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline

_KEPT = 32  # prefixes of one fold


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
        if type(estimator) is Pipeline and estimator.steps:
            name, estimator = estimator.steps[-1]
        elif type(estimator) is TransformedTargetRegressor and estimator.regressor is not None:
            name, estimator = "regressor", (fitted and getattr(estimator, "regressor_", None)) or estimator.regressor
        else:
            return
        prefix += f"{name}__"


def grafted(fitted: Any, wanted: Any, last: Any, mixed: Callable[[Any], Any] = copy.copy) -> Any:
    """Return a copy of what was fitted, with the parameters of another, and another last step.

    Parameters
    ----------
    fitted, wanted : estimator
        Of the same shape.
    last : estimator
        Takes the place of the last step.
    mixed : callable
        Makes the copies of the pipelines.
    """
    if type(fitted) is Pipeline:
        copied = mixed(wanted)
        (name, inner), inner_wanted = fitted.steps[-1], wanted.steps[-1][1]
        copied.steps = [*fitted.steps[:-1], (name, grafted(inner, inner_wanted, last, mixed))]
        return copied
    if type(fitted) is TransformedTargetRegressor:
        copied = copy.copy(wanted)
        learned = {name: value for name, value in vars(fitted).items() if name not in vars(wanted)}
        copied.__dict__.update(learned)
        copied.regressor_ = grafted(fitted.regressor_, wanted.regressor, last, mixed)
        if hasattr(copied.regressor_, "feature_names_in_"):
            copied.feature_names_in_ = copied.regressor_.feature_names_in_
        return copied
    return last


def why_random(estimator: Any, *, but: str = "") -> str:
    """Return which random state isn't an integer, so that every fit is another one; empty if there is none.

    Parameters
    ----------
    but : str
        Parameters that begin with it are read elsewhere.
    """
    for name, value in estimator.get_params(deep=True).items():
        elsewhere = but and name.startswith(but)
        if f"__{name}".endswith("__random_state") and not elsewhere and not isinstance(value, numbers.Integral):
            return f"{name} isn't an integer, so that every fit would transform the rows otherwise"
    return ""


class Transformers:
    """Fitted transformers of one fold, and what they made of its training rows."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()
        self._locks: dict[Any, threading.Lock] = {}
        self._lock = threading.Lock()

    def once(self, key: Any, make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """Return what is there under a key, made the first time that it is asked for."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key in self._kept:
                with self._lock:
                    self._kept.move_to_end(key)
                return self._kept[key]
            made = make()
            with self._lock:
                self._kept[key] = made
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return made


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
            key = None if why_random(transformer) else _hash((transformer, others.get("params")))
            self._so_far = None if key is None or self._so_far is None else (*self._so_far, key)
            if self._so_far is None:
                return function(transformer, X, y, *args, **others)
            made, fitted = self._transformers.once(self._so_far, lambda: function(transformer, X, y, *args, **others))
            return own(made), fitted  # whoever comes next may work in place

        return once

    def __deepcopy__(self, memo: Any) -> _Memory:
        return self  # a target transformer clones what it fits


def remembering(estimator: Any, transformers: Transformers) -> Any:
    """Let the next fit of an estimator take transformers that are fitted already; it leaves no trace."""

    def fit(X: Any, y: Any = None, **params: Any) -> Any:
        del estimator.fit
        steps = [step for _, step in path(estimator)]
        pipelines = [step for step in steps if type(step) is Pipeline and step.memory is None]
        targets = [_hash(_alone(step)) for step in steps if type(step) is TransformedTargetRegressor]
        if not pipelines or None in targets:
            return estimator.fit(X, y, **params)
        memory = _Memory(transformers, targets)
        for pipeline in pipelines:
            pipeline.memory = memory
        try:
            return estimator.fit(X, y, **params)
        finally:
            for _, step in [*path(estimator), *path(estimator, fitted=True)]:
                if getattr(step, "memory", None) is memory:
                    step.memory = None

    estimator.fit = fit
    return estimator


def _alone(target: Any) -> Any:
    alone = copy.copy(target)
    alone.regressor = None
    return alone


def _hash(value: Any) -> str | None:
    try:
        return str(joblib.hash(value))
    except Exception:  # noqa: BLE001 - whatever can't be pickled is compared with nothing
        return None


def own(X: Any) -> Any:
    """Return rows that can be changed."""
    if hasattr(X, "flags"):
        return X.copy(order="K")
    return X.copy() if hasattr(X, "copy") else copy.deepcopy(X)
