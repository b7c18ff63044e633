"""What a model sees of a row: columns of the table, or what a function makes of it and of nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import MlopsError, refuse
from mlops_dagster.spec.functions import calling
from mlops_dagster.spec.model import Declaration

Features = Callable[[pd.DataFrame], pd.DataFrame]
_OWN = ("target", "current", "truth", "split", "position")
_OF_PREDICTIONS = ("prediction", "truth_time", "baseline")
_TRIED_ROWS = 10_000
"""So many rows show whether a function looks at others; more only take longer."""


def features_of(declaration: Declaration, table: pd.DataFrame, function: Features | None = None) -> pd.DataFrame:
    """Return the features of each row of a table, in the order in which the model sees them.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows that fulfil the contract, n of them.
    function : callable, optional
        The declaration's, from the table to features, row by row. Not given: the declared columns.

    Returns
    -------
    pandas.DataFrame
        n rows with the table's index. Numbers are int64 or float64 (what isn't known is NaN, never None), truth values
        bool (float64 where some are missing), texts are objects.

    Raises
    ------
    ParameterError
        If a feature isn't there, or the function drops, reorders or renames rows.
    UserCodeError
        If the function fails.
    """
    if function is None:
        names = [declaration.features] if isinstance(declaration.features, str) else declaration.features
        check_columns("features", names, table)
        made = table[list(names)]
    else:
        made = _called(declaration, table, function)
    twice = sorted({str(name) for name in made.columns[made.columns.duplicated()]})
    if twice:
        raise refuse("features", ", ".join(twice), "a feature can be named only once.")
    made = pd.DataFrame({name: plain(column) for name, column in made.items()}, index=table.index)
    for name, column in made.items():
        if column.dtype.kind == "f" and np.isinf(column).any():
            row = int(np.flatnonzero(np.isinf(column))[0])
            cure = "an estimator can't learn from an infinite number; make it missing (NaN), or divide otherwise."
            raise refuse(f"features.{name}", float(column.iloc[row]), f"in row {row + 1:,}; {cure}")
    return made


def check_columns(said: str, names: Iterable[str], table: pd.DataFrame) -> None:
    """Refuse names of columns that a table hasn't got, with the nearest that it has.

    Examples
    --------
    >>> check_columns("features", ["colour"], pd.DataFrame({"color": [1]}))
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: features='colour' (str): the table has no such column; did you mean color?
    """
    for name in names:
        if name not in table.columns:
            there = list(map(str, table.columns))
            meant = difflib.get_close_matches(str(name), there, n=1)
            cure = f"did you mean {meant[0]}?" if meant else f"there are {', '.join(there[:20])}."
            raise refuse(said, name, f"the table has no such column; {cure}")


def plain(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column as one of the types that a store keeps and scikit-learn takes: what is missing is NaN.

    Examples
    --------
    >>> plain(pd.Series([True, None, False], dtype=object)).tolist()
    [1.0, nan, 0.0]
    >>> plain(pd.Series(["a", None])).tolist(), plain(pd.Series([3, None], dtype=object)).tolist()
    (['a', nan], [3.0, nan])
    """
    if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object:
        column = column.astype(object)
        kind = pd.api.types.infer_dtype(column, skipna=True)
        if kind not in ("boolean", "integer", "floating", "mixed-integer-float", "datetime", "date"):
            return column.where(column.notna(), np.nan)
        column = column.astype("boolean") if kind == "boolean" else column.infer_objects()
        column = pd.to_datetime(column) if kind in ("datetime", "date") else column
    dtype = column.dtype
    if dtype in (np.float64, np.int64, bool):
        return column
    whole = bool(column.notna().all())
    if pd.api.types.is_datetime64_any_dtype(dtype):
        dates: pd.Series[Any] = column.dt.tz_localize(None).astype("datetime64[us]")
        return dates
    if pd.api.types.is_bool_dtype(dtype):
        return column.astype(bool if whole else np.float64)
    if pd.api.types.is_numeric_dtype(dtype):
        return column.astype(np.int64 if whole and pd.api.types.is_integer_dtype(dtype) else np.float64)
    texts = column.astype(object)
    return texts.where(texts.notna(), np.nan)


def _called(declaration: Declaration, table: pd.DataFrame, function: Features) -> pd.DataFrame:
    said = str(declaration.features)
    made = calling(f"features {said}", function, table.copy())
    if not isinstance(made, pd.DataFrame):
        raise refuse("features", said, f"it returns a {type(made).__name__}; return a pandas.DataFrame.")
    if len(made) != len(table):
        cure = "keep every row, and leave missing (NaN) what isn't known of it."
        raise refuse("features", said, f"it makes {len(made):,} rows of {len(table):,}; {cure}")
    if not made.index.equals(table.index):
        cure = "return the features with the index of the table that the function is given, in its order."
        raise refuse("features", said, f"the rows that it returns have another order or index; {cure}")
    if not len(made.columns) or not all(isinstance(name, str) and name for name in made.columns):
        raise refuse("features", said, "give each feature a text as its name, and return at least one.")
    return made


def reached_by_look_back(declaration: Declaration, table: pd.DataFrame, made: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Say which rows the look-back of a function's features reaches: not the first ones of a series.

    A feature that is a column of the table is missing where the table says so, and one that is never known in a series
    says nothing about a look-back.
    """
    reached = np.ones(len(table), dtype=bool)
    series = np.zeros(len(table)) if declaration.group is None else pd.factorize(table[declaration.group])[0]
    for name, column in made.items():
        if name in table.columns and column.equals(plain(table[name])):
            continue
        known = column.notna()
        seen = known.groupby(series).cummax()
        ever = known.groupby(series).transform("any")
        reached &= (seen | ~ever).to_numpy()
    return reached


# ------------------------------------------------------------------------------------- what a function looks at


def features_that_look_at_other_rows(
    declaration: Declaration, table: pd.DataFrame, function: Features, made: pd.DataFrame
) -> tuple[str, ...]:
    """Find the features that change when rows change which they mustn't know.

    A function that doesn't say the same of the same rows twice is refused: nothing it made could be made again.

    With a column of time those are all rows that come later. Without, they are other rows (other groups, if there are
    any): whatever was computed over all rows has seen those that are tested on. The others are changed, and what was
    computed for those that weren't must stay the same, bit for bit.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows that fulfil the contract, in the order of time if there is one.
    made : pandas.DataFrame
        What the function made of them.

    Returns
    -------
    tuple of str
        Their names; empty if every feature knows only what it may.
    """
    some = table.iloc[:_TRIED_ROWS].reset_index(drop=True)
    again = features_of(declaration, some, function)
    before = made if some.index.equals(table.index) else features_of(declaration, some, function)
    table = some
    restless = [name for name in before.columns if not before[name].equals(again[name])]
    if restless:
        cure = "it is another each time the function is called; seed its random numbers, and keep clocks out of it."
        raise refuse("features", ", ".join(restless), cure)
    said = (declaration.time, declaration.group, declaration.split.column, *declaration.key)
    changeable = [name for name in table.columns if name not in said]
    guilty: set[str] = set()
    for changed in _parts_to_change(declaration, table):
        if changed.any() and not changed.all():
            guilty |= _moved(declaration, table, function, before, changed, changeable)
    return tuple(name for name in before.columns if name in guilty)


def features_that_see_the_target(declaration: Declaration, table: pd.DataFrame, function: Features) -> tuple[str, ...]:
    """Find the features that change when the target changes."""
    table = table.iloc[:_TRIED_ROWS].reset_index(drop=True)
    before, nothing = features_of(declaration, table, function), np.zeros(len(table), dtype=bool)
    guilty = _moved(declaration, table, function, before, nothing, [declaration.target.column], everywhere=True)
    return tuple(name for name in before.columns if name in guilty)


def _parts_to_change(declaration: Declaration, table: pd.DataFrame) -> list[npt.NDArray[np.bool_]]:
    rows = len(table)
    if declaration.time is not None:
        times = table[declaration.time].to_numpy()
        cuts = np.unique(np.linspace(1, max(rows - 1, 1), 5, dtype=int))
        return [times >= times[cut] for cut in cuts if cut < rows]
    group = declaration.group
    places = np.arange(rows) if group is None else pd.factorize(table[group])[0]
    return [places % 2 == 1]


def _moved(
    declaration: Declaration,
    table: pd.DataFrame,
    function: Features,
    before: pd.DataFrame,
    changed: npt.NDArray[np.bool_],
    columns: Sequence[str],
    *,
    everywhere: bool = False,
) -> set[str]:
    other = table.copy()
    for name in columns:
        values = _changed(table[name])
        other[name] = values if everywhere else table[name].where(~changed, values)
    try:
        after = features_of(declaration, other, function)
    except MlopsError:
        return set()  # a function may refuse values that nobody has given; then this part can't be tried
    return {str(name) for name in before.columns if not before[name][~changed].equals(after[name][~changed])}


def _changed(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return other values of the same type; what is missing stays so."""
    # Another change each row: if all rows had the same one, ratios of two of them would not move.
    steps = np.arange(len(column)) % 7
    if column.dtype == bool:
        return ~column
    if column.dtype.kind == "i":
        return column * 2 + 1 + steps
    if column.dtype.kind == "f":
        return column * (1.5 + steps / 4) + 1.0
    if column.dtype.kind == "M":
        return column + pd.to_timedelta(1 + steps, unit="D")
    codes, there = pd.factorize(column, sort=True)
    values = np.asarray(there, dtype=object)[(codes + 1) % max(len(there), 1)] if len(there) else codes
    return pd.Series(np.where(codes >= 0, values, np.nan), index=column.index, dtype=object)


# --------------------------------------------------------------------------------- beside the rest of the table


def kept_columns(declaration: Declaration) -> list[str]:
    """Return the columns that a training set keeps beside its features."""
    said = [
        *declaration.key,
        declaration.time,
        declaration.group,
        *declaration.gate.slices,
        declaration.baseline.column,
    ]
    return [*dict.fromkeys(name for name in said if name is not None)]


def check_features(
    declaration: Declaration, table: pd.DataFrame, made: pd.DataFrame, function: Features | None, horizon: int | None
) -> tuple[str, ...]:
    """Refuse features that take another column's name or know what they mustn't: the target, the split, other rows.

    Returns
    -------
    tuple of str
        Features that look at other rows, where the declaration allows leaks.
    """
    looks = features_that_look_at_other_rows(declaration, table, function, made) if function is not None else ()
    kept, column = kept_columns(declaration), declaration.target.column
    for name in [*made.columns, *kept]:
        own = (*_OWN, *_OF_PREDICTIONS) if name in kept and name != declaration.baseline.column else _OWN
        if name.lower() in own:
            cure = f"a table that is made of it has a column of its own by this name; call it otherwise, as {name}_."
            raise refuse("features" if name in made.columns else "declaration", name, cure)
    for name in made.columns:
        if name in kept and not made[name].equals(plain(table[name])):
            raise refuse("features", name, f"the table has other values by this name; call it otherwise, as {name}_.")
    if declaration.split.column in made.columns:
        raise refuse("features", declaration.split.column, "it says which rows are tested on; leave it out.")
    seen: tuple[str, ...] = (column,) if column in made.columns and horizon is None else ()
    if not seen and function is not None and horizon is None:
        seen = features_that_see_the_target(declaration, table, function)
    if seen:
        cure = f"they are made from {column}, the target, which nobody knows when a prediction is wanted; leave it out."
        raise refuse("features", ", ".join(seen), cure)
    if looks and declaration.leaks == "refuse" and not declaration.gate.allow_leaks:
        whom = "the future: rows that come later" if declaration.time else "other rows, also those that are tested on"
        cure = "compute them from the row and those before it" if declaration.time else "compute them row by row"
        raise refuse("features", ", ".join(looks), f"looks at {whom}; {cure}, or fit them inside a Pipeline.")
    return looks
