"""What a fitted estimator is, in one digest: its class, its parameters, and everything that was learned."""

from __future__ import annotations

import enum
import functools
import hashlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from mlops_dagster.errors import MlopsError

# How an estimator is computed or reported, not what it is.
_HOW_ONLY = ("n_jobs", "verbose", "warm_start")
_PLAIN: tuple[Any, ...] = (type(None), bool, int, float, complex, str)
# How long something took, and where results of fits are kept.
_NOT_LEARNED = ("memory", "pre_dispatch", "refit_time_")


class NoDigestError(MlopsError):
    """An estimator holds something of which nobody can say whether it is the same in another process."""

    exit_status = 2


def model_digest(model: Any) -> str:
    """Return a sha256 over what decides an estimator's predictions: its class, parameters and all that it learned.

    Two models with the same digest make the same predictions. It doesn't depend on the file format, the process or
    the number of cores, as files and pickles do.

    Parameters
    ----------
    model : estimator
        Fitted; any that is made of Python objects, numpy, pandas and scipy, as scikit-learn's are, pipelines of them,
        and XGBoost's and LightGBM's.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    NoDigestError
        If it holds something else, as an open file.
    """
    return _Walk().digest(model).hex()


def _one_layout(array: Any) -> Any:
    # One layout whatever the machine's byte order, so that equal arrays give equal bytes.
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


class _Walk:
    """A walk over an object and what it holds. Where an object lies, and who shares it, makes no difference."""

    def __init__(self) -> None:
        self._above: list[int] = []

    def digest(self, value: Any) -> bytes:
        if id(value) in self._above:
            # What holds itself: said by how far up it is.
            return self._join("above", str(len(self._above) - self._above.index(id(value))).encode())
        self._above.append(id(value))
        try:
            return self._of(value)
        finally:
            self._above.pop()

    def _of(self, value: Any) -> bytes:
        if isinstance(value, np.generic) and not isinstance(value, np.void):
            value = value.item()
        for base in _PLAIN:
            if isinstance(value, base):
                # A subclass, as a numpy text, is what it says.
                return self._join(base.__name__, base.__repr__(value).encode())
        if isinstance(value, bytes | bytearray):
            return self._join("bytes", bytes(value))
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, enum.Enum):
            return self._join("enum", _name(type(value)).encode(), value.name.encode())
        if isinstance(value, list | tuple):
            return self._join(type(value).__name__, *map(self.digest, value))
        if isinstance(value, set | frozenset):
            return self._join("set", *sorted(map(self.digest, value)))
        if isinstance(value, Mapping):
            return self._join(_name(type(value)), *self._pairs(value))
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | np.ufunc):
            name = _name(value)
            if "<" in name:  # it may hold values of where it was made
                raise NoDigestError(f"{name} can't be told from another; write the function at the top of a module.")
            return self._join("named", name.encode())
        for kind, parts in _PARTS:
            if isinstance(value, kind):
                return self._join(_name(kind), *map(self.digest, parts(value)))
        return self._object(value)

    def _array(self, array: Any) -> bytes:
        about = f"{array.shape}".encode()
        if array.dtype.names:
            # Field by field: between them a structure has bytes that mean nothing.
            return self._join("fields", about, *(self.digest(array[name]) for name in array.dtype.names))
        if array.dtype.hasobject:
            return self._join("objects", about, *map(self.digest, array.ravel().tolist()))
        kind = f"{array.dtype.kind}{array.dtype.itemsize}".encode()
        return self._join("array", kind, about, _one_layout(array).tobytes())

    def _object(self, value: Any) -> bytes:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        if hasattr(value, "get_booster"):
            return self._join(name, *self._pairs(_parameters(value)), bytes(value.get_booster().save_raw("json")))
        if hasattr(value, "booster_"):
            return self._join(name, *self._pairs(_parameters(value)), value.booster_.model_to_string().encode())
        if isinstance(value, BaseEstimator):
            return self._join(name, *self._pairs(_learned(value)))
        try:
            # What it takes to make it again, as copying and pickling ask for it.
            made = value.__reduce_ex__(2)
        except TypeError as error:
            raise NoDigestError(f"a {name} has no digest: {error}.") from None
        if isinstance(made, str):
            return self._join("named", made.encode())
        maker, arguments, *rest = made
        state = [dict(one) if isinstance(one, Mapping) else one for one in rest[:1]]
        items = [list(one) for one in rest[1:3] if one is not None]
        return self._join(name, *map(self.digest, (maker, arguments, state, items)))

    def _pairs(self, of: Mapping[Any, Any]) -> list[bytes]:
        return sorted(self.digest(key) + self.digest(value) for key, value in of.items())

    @staticmethod
    def _join(kind: str, *parts: bytes) -> bytes:
        digest = hashlib.sha256(kind.encode())
        for part in parts:
            digest.update(len(part).to_bytes(8, "little") + part)
        return digest.digest()


def _learned(estimator: Any) -> dict[str, Any]:
    """Return an estimator's parameters and what it learned, without what differs from fit to fit."""
    learned = {name: value for name, value in vars(estimator).items() if name not in (*_HOW_ONLY, *_NOT_LEARNED)}
    if "cv_results_" in learned:
        learned["cv_results_"] = {k: v for k, v in learned["cv_results_"].items() if not k.endswith("_time")}
    return learned


def _parameters(estimator: Any) -> dict[str, Any]:
    return {name: value for name, value in estimator.get_params().items() if name not in _HOW_ONLY}


def _name(of: Any) -> str:
    return f"{getattr(of, '__module__', None)}.{getattr(of, '__qualname__', getattr(of, '__name__', ''))}"


_PARTS: tuple[tuple[Any, Callable[[Any], list[Any]]], ...] = (
    (np.dtype, lambda one: [one.str]),
    (np.random.RandomState, lambda one: [one.get_state(legacy=False)]),
    (np.random.Generator, lambda one: [one.bit_generator.state]),
    (slice, lambda one: [one.start, one.stop, one.step]),
    (range, lambda one: [one.start, one.stop, one.step]),
    (functools.partial, lambda one: [one.func, one.args, one.keywords]),
    (types.MethodType, lambda one: [one.__func__, one.__self__]),
    (pd.DataFrame, lambda one: [list(one.columns), *(one.iloc[:, place] for place in range(one.shape[1]))]),
    (pd.Series, lambda one: [one.name, one.index, one.to_numpy()]),
    (pd.Index, lambda one: [list(one.names), one.to_numpy()]),
)
