"""What several settings of one step have in common, done once: scores of features, and fits inside of the step.

The step's own ``fit`` runs. Only what it calls is another: its function that scores features, or ``fit`` of the clones
that it makes of the estimator inside of it. So a fit is left out only where the same estimator sees the same rows.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import joblib
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest

Keep = Callable[[Any, Callable[[], Any]], Any]
"""Takes a key and what makes something; returns what is there under the key, made the first time."""


def digest(value: Any) -> str | None:
    """Return a digest of anything; None of what can't be pickled, which so is compared with nothing."""
    try:
        return str(joblib.hash(value))
    except Exception:  # noqa: BLE001 - whatever it is
        return None


def once_inside(step: Any, keep: Keep) -> AbstractContextManager[None]:
    """Let a selector of scikit-learn's take what other settings of it have left, as long as this lasts."""
    if type(step) in (RFE, SelectFromModel) and not getattr(step, "prefit", False):
        return fitted_once(step.estimator, keep)
    if type(step).__module__ == SelectKBest.__module__ and not _may_draw(step.score_func):
        return _scored_once(step, keep)
    return nullcontext()


@contextmanager
def fitted_once(estimator: Any, keep: Keep) -> Iterator[None]:
    """Let clones of an estimator that are fitted to equal rows be fitted once, as long as this lasts."""
    its_clone = getattr(type(estimator), "__sklearn_clone__", None)
    if its_clone is None:
        yield
        return

    def fit(one: Any, X: Any, *y: Any, **params: Any) -> Any:
        del one.fit, one.__sklearn_clone__
        key = digest((one, X, y, params))
        fitted = keep(key, lambda: one.fit(X, *y, **params)) if key else one.fit(X, *y, **params)
        one.__dict__.update(vars(fitted))
        return one

    def cloned() -> Any:
        one = its_clone(estimator)
        one.fit, one.__sklearn_clone__ = partial(fit, one), cloned
        return one

    estimator.__sklearn_clone__ = cloned
    try:
        yield
    finally:
        del estimator.__sklearn_clone__


@contextmanager
def _scored_once(step: Any, keep: Keep) -> Iterator[None]:
    score = step.score_func
    step.score_func = lambda X, y: keep(digest(score), lambda: score(X, y))
    try:
        yield
    finally:
        step.score_func = score


def _may_draw(score: Any) -> bool:
    """Whether scores of features may be others each time, or change the rows; scikit-learn's own say so."""
    given = score.keywords if isinstance(score, partial) else {}
    module = getattr(score.func if given else score, "__module__", "")
    if "copy" in given or not module.startswith("sklearn.feature_selection."):
        return True
    return module != SelectKBest.__module__ and not isinstance(given.get("random_state"), numbers.Integral)
