"""One fit that serves many candidates: which these are, the unit of work, and what the cache keeps of it.

What can be shared is said by :mod:`mlops_dagster.search.families`. Here nothing depends on the kind of estimator.
"""

from __future__ import annotations

import copy
import pickle
import pickletools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.model_selection._validation import _check_method_params, _fit_and_score
from sklearn.utils import get_tags
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.metaestimators import _safe_split

from mlops_dagster.search.cache import SearchCache
from mlops_dagster.search.data import SearchData
from mlops_dagster.search.families import family_of
from mlops_dagster.search.fronts import grafted, last_step, remembering
from mlops_dagster.search.units import Done, Failed

_VERSIONED = {"sklearn", "numpy", "scipy", "pandas", "xgboost", "lightgbm", "mlops_dagster"}
_PYTHON = {"builtins", "copyreg", "_codecs", "collections", "functools"}


# --------------------------------------------------------------------------------------------------------- the plan


@dataclass
class SharedFit:
    """Candidates that one fit serves on one fold.

    Parameters
    ----------
    key : str
        A digest of all that they have in common.
    counted : str
        What sizes count, see `Family`.
    sizes : dict of int to int
        The size of each candidate: the largest is fitted.
    """

    fold: int
    key: str
    counted: str
    sizes: dict[int, int] = field(default_factory=dict)
    setting: int = 0

    @property
    def largest(self) -> int:
        """How much the fit takes."""
        return max(self.sizes.values())


def read_candidate(estimator: Any, candidate: Mapping[str, Any], rows: int, why: str) -> tuple[str, str, int] | str:
    """Return key, what is counted and size of a candidate (see `SharedFit`), or why it shares nothing.

    Parameters
    ----------
    why : str
        Why fits of the steps in front differ, if they do.
    """
    wanted = clone(estimator).set_params(**clone(candidate, safe=False))
    last = last_step(wanted)
    family = family_of(last)
    if family is None:
        return f"fits of {type(last).__name__} share nothing"
    if hasattr(last, "_parameter_constraints"):
        try:
            last._validate_params()
        except InvalidParameterError as error:
            return str(error)
    if why := family.why_not(last, rows) or why:
        return why
    size = family.size(last)
    last.set_params(**dict.fromkeys((*family.shared, *family.unread)))
    try:
        return joblib.hash(wanted), family.counted, size
    except Exception as error:  # noqa: BLE001 - whatever it holds that can't be pickled
        return f"it can't be compared with others ({type(error).__name__}: {error})"


# --------------------------------------------------------------------------------------------------------- the unit


@dataclass(frozen=True)
class Served:
    """A candidate was scored by a copy of a shared fit.

    Parameters
    ----------
    scores : dict
        As scikit-learn's own fit-and-score returns them.
    grown : int
        How much the fit took, said with the first candidate only.
    """

    candidate: int
    scores: dict[str, Any]
    grown: int = 0


@dataclass(frozen=True)
class ServeUnit:
    """Fit the largest of some candidates on one fold, and score each of them by a copy that is cut to its size.

    Parameters
    ----------
    sizes : dict of int to int
        See `SharedFit`.
    parameters : dict of int to mapping
        Of each candidate.
    """

    fold: int
    sizes: Mapping[int, int]
    parameters: Mapping[int, Mapping[str, Any]]
    setting: int = 0

    @property
    def trees(self) -> int:
        """How much the fit takes."""
        return max(self.sizes.values())

    @property
    def candidate(self) -> int:
        """The one that is fitted."""
        return max(self.sizes, key=lambda candidate: self.sizes[candidate])

    def __str__(self) -> str:
        alike = f" and {len(self.sizes) - 1} smaller" if len(self.sizes) > 1 else ""
        return f"fold {self.fold}, candidate {self.candidate}{alike}: {dict(self.parameters[self.candidate])}"

    def run(self, data: SearchData) -> Iterator[Served | Failed | Done]:
        """Yield what each candidate scores; :class:`Failed` leaves those that are missing to plain fits."""
        try:
            yield from self._serve(data)
        except Exception as error:  # noqa: BLE001 - it is a result, see engine.Unit
            yield Failed(error)
        yield Done()

    def _serve(self, data: SearchData) -> Iterator[Served | Failed]:
        train, test = data.splits[self.fold]
        began = time.perf_counter()
        fitted = _configured(data, self.parameters[self.candidate])
        last = last_step(fitted)
        family = family_of(last)
        assert family is not None
        family.widen(last)
        X, y = _safe_split(fitted, data.X, data.y, train)
        fit_params = _check_method_params(data.X, params=data.fit_params, indices=train)
        remembering(fitted, data.transformers(self.fold))
        fitted.fit(*((X,) if y is None else (X, y)), **fit_params)
        per_size = (time.perf_counter() - began) / sum(self.sizes.values())
        last = last_step(fitted, fitted=True)
        family.share(last)
        grown = family.grown(last)
        # Of training rows that nobody scores no copy is made. Of a matrix of distances they say which columns are read.
        scored = data.train_scores or get_tags(fitted).input_tags.pairwise
        # Smallest first, so that the larger ones can go on from what the smaller ones did.
        for candidate, size in sorted(self.sizes.items(), key=lambda item: item[1]):
            began = time.perf_counter()
            scores = _fit_and_score(
                _fitted_already(_cut(fitted, _configured(data, self.parameters[candidate]))),
                data.X,
                data.y,
                train=train if scored else train[:0],
                test=test,
                parameters=None,
                fit_params=None,
                return_train_score=data.train_scores,
                **{**data.plain, "verbose": 0},
            )
            scores["fit_time"] = size * per_size
            scores["score_time"] = time.perf_counter() - began
            yield Served(candidate, scores, grown)
            grown = 0


def _configured(data: SearchData, parameters: Mapping[str, Any]) -> Any:
    return clone(data.estimator).set_params(**clone(parameters, safe=False))


def _cut(fitted: Any, wanted: Any) -> Any:
    """Return a copy of what was fitted that is what a fit of `wanted` would have left."""
    served, asked = copy.copy(last_step(fitted, fitted=True)), last_step(wanted)
    family = family_of(served)
    assert family is not None
    for name in (*family.shared, *family.unread):
        setattr(served, name, getattr(asked, name))
    family.cut(served)
    return grafted(fitted, wanted, served)


def _fitted_already(estimator: Any) -> Any:
    """Let scikit-learn's own function fit it once more, which does nothing and leaves no trace."""

    def fit(*_: Any, **__: Any) -> Any:
        del estimator.fit
        return estimator

    estimator.fit = fit
    return estimator


# -------------------------------------------------------------------------------------------------------- the cache


class ServedCache:
    """What a cache keeps of shared fits: scores, under a key of all that they depend on.

    Scores are kept only where all code that they depend on is of a package whose version is known: no key would show
    that somebody changed a function of his own.

    Attributes
    ----------
    refusal : str
        Why nothing is kept; empty if something is.
    """

    def __init__(self, cache: SearchCache, data: SearchData, candidates: Sequence[Mapping[str, Any]]) -> None:
        self._cache, self._data, self._candidates = cache, data, candidates
        plain = {name: value for name, value in data.plain.items() if name != "verbose"}
        self.refusal, self._about = "", ""
        try:
            code = _packages((data.estimator, list(candidates), plain["scorer"])) | {"sklearn", "numpy"}
            if foreign := sorted(code - _VERSIONED - _PYTHON):
                raise TypeError(f"they depend on {', '.join(foreign)}, whose code may change unseen")
            versions = sorted((name, sys.modules[name].__version__) for name in code & _VERSIONED)
            self._about = joblib.hash((versions, data.X, data.y, data.fit_params, plain, data.train_scores))
        except Exception as error:  # noqa: BLE001 - whatever can't be pickled
            self.refusal = f"the cache can't keep the scores: {error}."

    def names(self, shared: SharedFit, candidate: int) -> tuple[str, str]:
        """Return the key and the name of a candidate's scores."""
        key = joblib.hash((self._about, self._data.splits[shared.fold], shared.key))
        return key, joblib.hash(self._candidates[candidate])

    def read(self, shared: SharedFit) -> list[Served]:
        """Return the candidates that are there already."""
        found = []
        for candidate in shared.sizes if not self.refusal else ():
            entry = self._cache.read(*self.names(shared, candidate))
            if entry is None:
                continue
            about, arrays = entry
            scores: dict[str, Any] = {"fit_error": None, "fit_time": 0.0, "score_time": 0.0}
            for kind, array in arrays.items():
                names = about["names"]
                scores[kind] = dict(zip(names, array.tolist(), strict=True)) if names is not None else array.item()
            scores["n_test_samples"] = about["rows"]
            found.append(Served(candidate, scores))
        return found

    def write(self, shared: SharedFit, served: Served) -> None:
        """Keep a candidate's scores; those of a scorer that failed aren't, so that it says again why."""
        kinds = {kind: value for kind, value in served.scores.items() if kind in ("test_scores", "train_scores")}
        names = list(kinds["test_scores"]) if isinstance(kinds["test_scores"], dict) else None
        arrays = {
            kind: np.asarray(list(value.values()) if names is not None else value) for kind, value in kinds.items()
        }
        if self.refusal or not all(np.isfinite(array).all() for array in arrays.values()):
            return
        about = {"names": names, "rows": served.scores["n_test_samples"]}
        self._cache.write(*self.names(shared, served.candidate), about, arrays)


def _packages(code: Any) -> set[str]:
    """Return the packages whose code it is made of."""
    pickled = pickle.dumps(code, protocol=2, fix_imports=False)
    return {
        str(argument).partition(" ")[0].partition(".")[0]
        for operation, argument, _ in pickletools.genops(pickled)
        if operation.name == "GLOBAL"
    }
