"""The data of a search: rows, folds, and what each fold looks like to a forest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection._validation import _check_method_params
from sklearn.utils import check_array
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_feature_names

from mlops_dagster.search.fronts import Transformers, as_predicted, own, remembering, spied


class NotForTreesError(Exception):
    """These rows can't be converted as a forest would convert them; a plain fit says what is wrong with them."""


@dataclass(frozen=True)
class Rows:
    """One fold's rows, as trees read them.

    Parameters
    ----------
    X : array or CSC matrix of float32, shape (training rows, features)
        What trees are grown on.
    y : array
        The target as it was given; the forest encodes classes itself.
    evaluate : list of array or CSR matrix of float32
        What trees predict: the test rows, then the training rows if their scores are wanted too.
    has_nan : bool
        Whether something is missing in what is to be predicted, which not every forest accepts.
    """

    X: Any
    y: Any
    sample_weight: Any
    evaluate: Sequence[Any]
    has_nan: bool = False

    def digest(self) -> str:
        """Return a digest over all of it: equal rows, equal trees, equal predictions."""
        digest = hashlib.blake2b(digest_size=20)
        for part in (self.X, self.y, self.sample_weight, *self.evaluate):
            _update(digest, part)
        return digest.hexdigest()


def _update(digest: Any, part: Any) -> None:
    if sparse.issparse(part):
        digest.update(f"{part.format} {part.shape}".encode())
        for array in (part.data, part.indices, part.indptr):
            _update(digest, array)
        return
    array = None if part is None else np.asarray(part)
    if array is None or array.dtype.hasobject:
        digest.update(joblib.hash(array).encode())
        return
    digest.update(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


class Fold:
    """One split of the data, for one setting of the steps in front; made when it is asked for."""

    def __init__(self, data: SearchData, number: int, setting: int) -> None:
        self._data, self._number, self._setting = data, number, setting
        self.train, self.test = data.splits[number]
        X_train, self.y_train = _safe_split(data.estimator, data.X, data.y, self.train)
        # Only if they are to be scored: what trees read of them is a copy of its own.
        self.X_train = X_train if data.train_scores else None
        self.X_test, self.y_test = _safe_split(data.estimator, data.X, data.y, self.test, self.train)
        self._making = threading.RLock()
        self._composite: Any = None
        self._rows: Rows | None = None
        self.stand_in: Any = None  # what scorers see, once there is one

    @property
    def composite(self) -> Any:
        """What candidates are set on, fitted but for its last step."""
        self._make_rows()
        return self._composite

    @property
    def rows(self) -> Rows:
        """The rows as trees read them.

        Raises
        ------
        NotForTreesError
            If a forest would refuse them.
        """
        return self._make_rows()

    def _make_rows(self) -> Rows:
        with self._making:
            if self._rows is None:
                try:
                    self._rows = self._convert()
                except Exception as error:
                    raise NotForTreesError(f"{type(error).__name__}: {error}") from error
            return self._rows

    def _convert(self) -> Rows:
        data = self._data
        setting = data.settings[self._setting]
        composite, spy = spied(clone(data.estimator).set_params(**clone(dict(setting), safe=False)))
        X_train, X_test = self.X_train, self.X_test
        if X_train is None:
            X_train, _ = _safe_split(data.estimator, data.X, None, self.train)
        as_they_are = composite is spy
        weights = _check_method_params(data.X, params=data.fit_params, indices=self.train)
        remembering(composite, data.transformers(self._number))
        composite.fit(X_train, self.y_train, **weights)
        X, y, weights = spy.seen
        self._composite = composite
        if others := weights.keys() - {"sample_weight"}:
            raise TypeError(f"the fit parameters {sorted(others)} aren't those of a forest")
        _check_feature_names(clone(spy.real), X, reset=True)  # refuses names that a forest refuses
        grown_on = check_array(X, dtype=np.float32, accept_sparse="csc", ensure_all_finite=False)
        if sparse.issparse(grown_on):
            grown_on = grown_on.copy()  # sorting in place would change the user's matrix
            grown_on.sort_indices()
        # Training rows are predicted as any other rows would be: transformed, not fit_transformed.
        # Copies, since a transformer may work in place, and these rows are to be scored.
        parts = [part for part in (X_test if len(self.test) else None, self.X_train) if part is not None]
        evaluate = [
            check_array(
                part,
                dtype=np.float32,
                accept_sparse="csr",
                ensure_all_finite=True if sparse.issparse(part) else "allow-nan",
            )
            for part in (parts if as_they_are else [as_predicted(composite, own(part)) for part in parts])
        ]
        has_nan = any(not sparse.issparse(part) and bool(np.isnan(part).any()) for part in evaluate)
        return Rows(grown_on, y, weights.get("sample_weight"), evaluate, has_nan)


@dataclass
class SearchData:
    """Everything that units need to know, the same for all of them. Picklable.

    Parameters
    ----------
    estimator : estimator
        What candidates are set on. Unfitted.
    splits : list of (array, array)
        Row numbers of each fold's training and test rows.
    fit_params : mapping
        Given to its ``fit``; row-wise ones are cut along with the rows.
    train_scores : bool
        Whether training rows are to be predicted too.
    settings : list of mapping
        The settings of the steps in front, see `fronts.Settings`.
    plain : mapping
        Keyword arguments of scikit-learn's own fit-and-score, for candidates that are fitted plainly.
    """

    estimator: Any
    X: Any
    y: Any
    splits: Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]
    fit_params: Mapping[str, Any] = field(default_factory=dict)
    train_scores: bool = False
    plain: Mapping[str, Any] = field(default_factory=dict)
    settings: Sequence[Mapping[str, Any]] = ({},)

    def __post_init__(self) -> None:
        self._folds: dict[tuple[int, int], Fold] = {}
        self._transformers: dict[int, Transformers] = {}
        self._making = threading.Lock()

    def fold(self, number: int, setting: int = 0) -> Fold:
        """Return a fold, prepared once per process."""
        with self._making:
            if (number, setting) not in self._folds:
                self._folds[number, setting] = Fold(self, number, setting)
            return self._folds[number, setting]

    def transformers(self, number: int) -> Transformers:
        """Return what is kept of the transformers that were fitted on a fold."""
        with self._making:
            return self._transformers.setdefault(number, Transformers(self.train_scores))

    def release(self, number: int, setting: int | None = None) -> None:
        """Forget what was prepared of a fold, for one setting or for all."""
        with self._making:
            for key in [key for key in self._folds if key[0] == number and setting in (None, key[1])]:
                del self._folds[key]
            if setting is None:
                self._transformers.pop(number, None)

    def __getstate__(self) -> dict[str, Any]:
        # What was prepared is prepared again where it is needed.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()
