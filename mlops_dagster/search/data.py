"""The data of a search: rows, folds, and what each fold looks like to a forest."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn import get_config
from sklearn.base import clone
from sklearn.model_selection._validation import _check_method_params
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_feature_names


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
    """One split of the data. Everything that costs something is made when it is first asked for, once."""

    def __init__(self, data: SearchData, number: int) -> None:
        self._data = data
        self.train, self.test = data.splits[number]
        X_train, self.y_train = _safe_split(data.estimator, data.X, data.y, self.train)
        # Only if they are to be scored: what trees read of them is a copy of its own.
        self.X_train = X_train if data.train_scores else None
        self.X_test, self.y_test = _safe_split(data.estimator, data.X, data.y, self.test, self.train)
        self._making = threading.RLock()
        self._front: Pipeline | None = None
        self._rows: Rows | None = None
        self.stand_in: Any = None  # what scorers see, once there is one

    @property
    def front(self) -> Pipeline | None:
        """The fitted transformers in front of the forest; None if there are none."""
        estimator = self._data.estimator
        if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
            self._make_rows()
        return self._front

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
        data, X_test = self._data, self.X_test
        X, _ = _safe_split(data.estimator, data.X, None, self.train) if self.X_train is None else (self.X_train, None)
        if isinstance(data.estimator, Pipeline) and len(data.estimator.steps) > 1:
            front = clone(data.estimator)[:-1]
            X = front.fit_transform(X, self.y_train)
            X_test = front.transform(X_test)
            self._front = front
            # Training rows are predicted as any other rows would be: transformed, not fit_transformed.
            # Of a copy, since a transformer may work in place, and trees are still to be grown on X.
            X_again = front.transform(copy.deepcopy(self.X_train)) if data.train_scores else None
        else:
            X_again = X if data.train_scores else None
        _check_feature_names(clone(data.forest), X, reset=True)  # refuses names that a forest refuses
        grown_on = check_array(X, dtype=np.float32, accept_sparse="csc", ensure_all_finite=False)
        if sparse.issparse(grown_on):
            grown_on = grown_on.copy()  # sorting in place would change the user's matrix
            grown_on.sort_indices()
        evaluate = [
            check_array(
                part,
                dtype=np.float32,
                accept_sparse="csr",
                ensure_all_finite=True if sparse.issparse(part) else "allow-nan",
            )
            for part in (X_test if len(self.test) else None, X_again)
            if part is not None
        ]
        weights = _check_method_params(data.X, params=data.fit_params, indices=self.train)
        has_nan = any(not sparse.issparse(part) and bool(np.isnan(part).any()) for part in evaluate)
        return Rows(grown_on, self.y_train, weights.get(data.weight_name), evaluate, has_nan)


@dataclass
class SearchData:
    """Everything that units need to know, the same for all of them. Picklable.

    Parameters
    ----------
    estimator : estimator
        A forest, a pipeline that ends in one, or (for plain fits only) anything else. Unfitted.
    splits : list of (array, array)
        Row numbers of each fold's training and test rows.
    fit_params : mapping
        Given to ``fit`` of the forest; row-wise ones are cut along with the rows.
    train_scores : bool
        Whether training rows are to be predicted too.
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

    def __post_init__(self) -> None:
        self._folds: dict[int, Fold] = {}
        self._making = threading.Lock()

    @property
    def forest(self) -> Any:
        """The forest itself, the last step if the estimator is a pipeline."""
        return self.estimator.steps[-1][1] if isinstance(self.estimator, Pipeline) else self.estimator

    @property
    def weight_name(self) -> str:
        """What sample weights are called among the fit parameters."""
        if not isinstance(self.estimator, Pipeline):
            return "sample_weight"
        last = self.estimator.steps[-1][0]
        if not get_config()["enable_metadata_routing"] or not self.fit_params:
            return f"{last}__sample_weight"
        # Whoever has asked for it gets it, by whatever name; here it must be the forest alone.
        routed = process_routing(self.estimator, "fit", **self.fit_params)
        if any(any(methods.values()) for step, methods in routed.items() if step != last):
            return ""
        weight = routed[last].fit.get("sample_weight")
        return next((name for name, value in self.fit_params.items() if value is weight), "")

    def fold(self, number: int) -> Fold:
        """Return a fold, prepared once per process."""
        with self._making:
            if number not in self._folds:
                self._folds[number] = Fold(self, number)
            return self._folds[number]

    def release(self, number: int) -> None:
        """Forget what was prepared of a fold."""
        with self._making:
            self._folds.pop(number, None)

    def __getstate__(self) -> dict[str, Any]:
        # What was prepared is prepared again where it is needed.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()
