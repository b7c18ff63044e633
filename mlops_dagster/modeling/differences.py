"""What differs between two tables, or two sets of named values, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

_KEYS = ("Date", "candidate")
_NAMED = 5


def frame_differences(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """Say what differs between two tables; equal is equal to the last bit, and missing equals missing.

    Parameters
    ----------
    a, b : pandas.DataFrame
        Rows are matched by the column Date or candidate if both have it and it is unique, otherwise by their place.

    Returns
    -------
    list of str
        A sentence per kind of difference; empty if there is none.

    Examples
    --------
    >>> one = pd.DataFrame({"Date": ["Mon", "Tue"], "Close": [1.0, 2.0]})
    >>> frame_differences(one, one.assign(Close=[1.0, 2.5]))
    ['Close differs in 1 of 2 rows, first at Date=Tue: 2.0 and 2.5; the largest relative difference is 0.2.']
    """
    said = [
        f"{', '.join(map(repr, only))} {'is a column' if len(only) == 1 else 'are columns'} in {side} only."
        for only, side in (
            ([name for name in a if name not in b], "A"),
            ([name for name in b if name not in a], "B"),
        )
        if only
    ]
    key = next((name for name in _KEYS if all(name in side and side[name].is_unique for side in (a, b))), None)
    if key is None:
        if len(a) != len(b):
            said.append(f"A has {len(a)} rows, B has {len(b)}.")
        left, right = (side.head(min(len(a), len(b))).reset_index(drop=True) for side in (a, b))
    else:
        left, right = (side.set_index(key) for side in (a, b))
        for one, other, name in ((left, right, "A"), (right, left, "B")):
            only = one.index[~one.index.isin(other.index)]
            if len(only):
                said.append(f"{_several(len(only), 'row')} in {name} only, first {key}={_shown(only[0])}.")
        shared = left.index.intersection(right.index, sort=False)
        left, right = left.loc[shared], right.loc[shared]
    for name in left.columns:
        if name in right.columns and (told := _column(str(name), left[name], right[name], key)):
            said.append(told)
    return said


def value_differences(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """Say which named values differ, and which are on one side only.

    Examples
    --------
    >>> value_differences({"max_depth": 80, "seed": 0}, {"max_depth": 90})
    ['max_depth is 80 in A and 90 in B.', 'seed is 0 in A and missing in B.']
    """
    said = []
    for name in [*a, *(name for name in b if name not in a)]:
        if name not in b or name not in a:
            here, there = ("A", "B") if name in a else ("B", "A")
            said.append(f"{name} is {_shown(a[name] if name in a else b[name])} in {here} and missing in {there}.")
        elif a[name] != b[name] and not (a[name] != a[name] and b[name] != b[name]):
            far = _relative(a[name], b[name])
            said.append(f"{name} is {_shown(a[name])} in A and {_shown(b[name])} in B{far}.")
    return said


def list_differences(what: str, a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Say which of some names are on one side only."""
    said = []
    for only, side in (
        ([name for name in a if name not in b], "A"),
        ([name for name in b if name not in a], "B"),
    ):
        if only:
            more = "" if len(only) <= _NAMED else f" and {len(only) - _NAMED} more"
            said.append(f"{_several(len(only), what)} in {side} only: {', '.join(only[:_NAMED])}{more}.")
    return said


def _column(name: str, a: pd.Series, b: pd.Series, key: str | None) -> str | None:
    if a.dtype != b.dtype:
        return f"{name} is {a.dtype} in A and {b.dtype} in B."
    one, other = a.to_numpy(), b.to_numpy()
    unequal = ~((one == other) | (pd.isna(one) & pd.isna(other)))
    if not unequal.any():
        return None
    at = int(unequal.argmax())
    where = f"row {at}" if key is None else f"{key}={_shown(a.index[at])}"
    told = (
        f"{name} differs in {int(unequal.sum())} of {len(a)} rows, first at {where}: "
        f"{_shown(a.iloc[at])} and {_shown(b.iloc[at])}"
    )
    if pd.api.types.is_float_dtype(a.dtype):
        with np.errstate(all="ignore"):
            scale = np.maximum(np.abs(one), np.abs(other))
            far = float(np.nanmax(np.where(unequal, np.abs(one - other) / scale, 0.0), initial=0.0))
        told += f"; the largest relative difference is {far:.2g}"
    return f"{told}."


def _relative(a: object, b: object) -> str:
    if not isinstance(a, float) or not isinstance(b, float):
        return ""
    return f" (relative difference {abs(a - b) / max(abs(a), abs(b)):.2g})"


def _several(count: int, what: str) -> str:
    return f"{count} {what} is" if count == 1 else f"{count} {what}s are"


def _shown(value: object) -> str:
    if isinstance(value, pd.Timestamp):
        return str(value.date()) if value == value.normalize() else str(value)
    if isinstance(value, np.generic):
        value = value.item()
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
