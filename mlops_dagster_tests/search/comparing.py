"""Comparing a search with scikit-learn's own, on everything but times."""

import re
import warnings

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from mlops_dagster.search import SharedGridSearchCV

TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")
# Warnings that people act on. Others may be said once for what was done once.
SAID = (
    FitFailedWarning,
    "One or more of the test scores are non-finite",
    "One or more of the train scores are non-finite",
    "Scoring failed",
    "does not support sample_weight",
)


def assert_same(estimator, grid, X, y, *, shared=None, fit_params=None, ours=None, **arguments):
    """Fit both searches to the same, compare them, and return ours.

    Parameters
    ----------
    shared : bool, optional
        True: every candidate must share, and nothing may have fallen back. False: every one must have been fitted
        plainly. None: either.
    fit_params : mapping
        Given to ``fit`` of both.
    ours : mapping
        What only ours is given.
    **arguments
        Given to both.
    """
    fit_params = fit_params or {}
    theirs = GridSearchCV(clone(estimator), grid, **_fresh(arguments))
    their_error, their_warnings = outcome(theirs, X, y, fit_params)
    mine = SharedGridSearchCV(clone(estimator), grid, **_fresh(arguments), **(ours or {}))
    my_error, my_warnings = outcome(mine, X, y, fit_params)

    assert (my_error is None) == (their_error is None), (my_error, their_error)
    if their_error is not None:
        # Where several things are wrong, "raise" gives whichever is met first, as GridSearchCV with processes does.
        if arguments.get("error_score") != "raise":
            assert type(my_error) is type(their_error)
            assert said_by(my_error) == said_by(their_error)
        return mine
    assert_equal_results(mine.cv_results_, theirs.cv_results_)
    assert_equal_best(mine, theirs, X)
    assert my_warnings == their_warnings
    if shared is True:
        assert mine.work_["not_shared"] == {}, mine.work_
        assert mine.work_["fell_back"] == {}, mine.work_
        assert mine.work_["plain_fits"] == 0, mine.work_
    elif shared is False:
        assert mine.work_["plain_fits"] == mine.work_["fits"], mine.work_
    return mine


def said_by(error):
    """Return an error's text, but for our name, and the line numbers in scikit-learn's summary of failed fits."""
    text = str(error).replace("SharedGridSearchCV", "GridSearchCV")
    # Of a fit that failed the summary has the lines that it came through; some are ours, or the memory's.
    text = re.sub(r'  File "[^"]*(?:mlops_dagster/search/|joblib/memory.py)[^\n]*\n(?:    [^\n]*\n)+', "", text)
    return [line for line in text.splitlines() if "_validation.py" not in line]


def outcome(search, X, y, fit_params):
    """Fit, and return the error or None, and which of the warnings in `SAID` were given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            search.fit(X, y, **fit_params)
            error = None
        except Exception as raised:  # noqa: BLE001 - whatever it is, both must raise it
            error = raised
    said = {
        about
        for about in SAID
        for warning in caught
        if (about in str(warning.message) if isinstance(about, str) else issubclass(warning.category, about))
    }
    return error, said


def assert_equal_results(mine, theirs):
    """Compare two ``cv_results_``: keys and their order, types, masks, values to the last bit."""
    assert list(mine) == list(theirs)
    for key, expected in theirs.items():
        got = mine[key]
        assert type(got) is type(expected), key
        if key == "params":
            assert repr(got) == repr(expected)
            continue
        assert got.dtype == expected.dtype, key
        assert got.shape == expected.shape, key
        if key in TIMES:
            assert np.isfinite(got).all(), key
            assert (got >= 0).all(), key
        elif isinstance(expected, np.ma.MaskedArray):
            assert np.array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(expected)), key
            assert repr(got.tolist()) == repr(expected.tolist()), key
        else:
            np.testing.assert_array_equal(got, expected, err_msg=key)


def assert_equal_best(mine, theirs, X):
    """Compare what two fitted searches chose, and what they predict with it."""
    for name in ("best_index_", "best_score_", "best_params_", "n_splits_", "multimetric_", "n_features_in_"):
        assert hasattr(mine, name) == hasattr(theirs, name), name
        if hasattr(theirs, name):
            assert repr(getattr(mine, name)) == repr(getattr(theirs, name)), name
    for name in ("classes_", "feature_names_in_"):
        assert hasattr(mine, name) == hasattr(theirs, name), name
        if hasattr(theirs, name):
            assert repr(getattr(mine, name)) == repr(getattr(theirs, name)), name
    assert repr(mine.scorer_) == repr(theirs.scorer_)
    assert hasattr(mine, "best_estimator_") == hasattr(theirs, "best_estimator_")
    if hasattr(theirs, "best_estimator_"):
        assert repr(mine.best_estimator_) == repr(theirs.best_estimator_)
        assert hasattr(mine, "refit_time_")
        for method in ("predict", "predict_proba", "transform"):
            assert hasattr(mine, method) == hasattr(theirs, method)
        if hasattr(theirs, "predict"):
            np.testing.assert_array_equal(mine.predict(X), theirs.predict(X))


def _fresh(arguments):
    """Return arguments of which a generator can be used up: each search gets its own."""
    cv = arguments.get("cv")
    return {**arguments, "cv": cv()} if callable(cv) else arguments
