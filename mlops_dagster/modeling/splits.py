"""Which rows a model is trained on and which it is tested on: scikit-learn's own splits, and the last rows in time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import refuse, written
from mlops_dagster.spec.model import Split as Declared

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """The row numbers of each part, in the order in which the model sees them."""

    train: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]


def split_rows(
    declared: Declared,
    test_size: float,
    known: Rows,
    *,
    targets: pd.Series[Any],
    groups: pd.Series[Any] | None = None,
    times: pd.Series[Any] | None = None,
    truth_times: pd.Series[Any] | None = None,
    given: pd.Series[Any] | None = None,
) -> Split:
    """Split rows as declared.

    Parameters
    ----------
    known : array of int
        The rows whose target is known, ascending; only they are split.
    targets, groups, times : Series
        Of all rows, known or not: what is learned, what belongs together, when a row is.
    truth_times : Series, optional
        Of forecasts: when the truth of a row is.
    given : Series, optional
        Of kind column: train or test.

    Raises
    ------
    ParameterError
        If it can't be done: a class of one row, a single group, a column with other values.
    """
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    if declared.kind == "column":
        assert given is not None
        return _given(declared, known, given)
    if declared.kind == "chronological":
        assert times is not None
        return _chronological(declared, test_size, known, times, truth_times)
    if declared.kind == "group":
        assert groups is not None
        few = groups.iloc[known].nunique()
        if few < 2:
            cure = f"all rows are of one {groups.name}; give rows of several, or another split."
            raise refuse("split.kind", declared.kind, cure)
        splitter = GroupShuffleSplit(n_splits=1, test_size=test_size, random_state=declared.seed)
        train, test = next(splitter.split(known, groups=groups.iloc[known]))
        return Split(known[train], known[test])
    classes = None
    if declared.kind == "stratified":
        classes = targets.iloc[known]
        counts = classes.value_counts()
        rare = counts[counts < 2]
        if len(rare):
            cure = "one part would have none; leave it out, join it to another class, or use split: random."
            raise refuse("split.kind", declared.kind, f"class {written(rare.index[0])} has a single row, and {cure}")
        parts = math.floor(len(known) * test_size), math.floor(len(known) * (1 - test_size))
        if min(parts) < len(counts):
            cure = f"fewer than there are classes, {len(counts):,}; give more rows, or join rare classes."
            raise refuse("test_size", test_size, f"of {len(known):,} rows one part would get {min(parts):,}, {cure}")
    train, test = train_test_split(known, test_size=test_size, random_state=declared.seed, stratify=classes)
    return Split(train, test)


def _given(declared: Declared, known: Rows, given: pd.Series[Any]) -> Split:
    values = given.iloc[known]
    other = values[~values.isin(["train", "test"])]
    if len(other):
        cure = f"row {other.index[0] + 1:,} has {other.iloc[0]!r}; each row has to say train or test."
        raise refuse("split.column", declared.column, cure)
    train, test = (known[(values == part).to_numpy()] for part in ("train", "test"))
    for part, rows in (("train", train), ("test", test)):
        if not len(rows):
            raise refuse("split.column", declared.column, f"no row with a known target says {part}; mark some.")
    return Split(train, test)


def _chronological(
    declared: Declared, test_size: float, known: Rows, times: pd.Series[Any], truth_times: pd.Series[Any] | None
) -> Split:
    """Test on the last rows. Rows of one time stay together, so that no training row is as late as a test row."""
    its_times = times.iloc[known]
    begin = its_times.iloc[len(known) - math.ceil(len(known) * test_size)]
    early, late = (its_times < begin).to_numpy(), (its_times >= begin).to_numpy()
    if declared.gap is not None:
        moments = np.unique(its_times[early].to_numpy())
        if declared.gap:
            early &= ~np.isin(its_times.to_numpy(), moments[-declared.gap :])
    elif truth_times is not None:
        # What a training row forecasts has to have happened before the test begins.
        early &= (truth_times.iloc[known] < begin).to_numpy()
    return Split(known[early], known[late])
