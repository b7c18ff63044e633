"""Whether a training set tells a model what it will be asked in the test."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.tree import DecisionTreeClassifier

from mlops_dagster.modeling.training_set import TrainingSet

_ALMOST = 0.999
_ALMOST_THE_CHANGE = 0.99  # where seasons are strong, last week's change is nearly this week's
_FEWEST = 10  # rows of a class: fewer are separated by chance
_LOOKED_AT = 20_000
_SAME_ROWS = 0.05


def find_leaks(training_set: TrainingSet) -> list[str]:
    """Find what a training set tells of the test rows' answers.

    Parameters
    ----------
    training_set : TrainingSet
        Only its table is looked at, and what was found when it was made.

    Returns
    -------
    list of str
        One sentence per kind of leak, with the cure; empty if none was found. Found are: features that look at other
        rows, or (almost) are the answer; training rows as late as test rows, or whose truth is; a key or a group in
        both parts; many rows in both parts; and a truth that isn't the value one horizon later.

    Examples
    --------
    >>> frame = pd.DataFrame({"size": range(80), "target": [2.0 * row for row in range(80)], "position": range(80)})
    >>> frame["split"] = ["train"] * 60 + ["test"] * 20
    >>> find_leaks(TrainingSet(frame, "regression", ("size",), "price", "random", 0.25))
    ['size: (almost) the target, price, itself; leave it out, or use what is known when a prediction is wanted.']
    """
    if training_set.horizon is not None and not _truth_lies_ahead(training_set):
        # Nothing that follows could be judged: it relies on where the truth lies.
        return [
            f"truth isn't {training_set.column} {training_set.horizon} rows later: one of truth, horizon and the order "
            "of rows is wrong; make the training set anew."
        ]
    found = []
    if training_set.looks_at_other_rows:
        which = "later rows" if training_set.time else "other rows, also those that are tested on"
        found.append(
            f"{_listed(training_set.looks_at_other_rows)}: computed from {which}; compute it from what is known of the "
            "row, or fit it on the training rows inside a Pipeline."
        )
    answers = [name for name in training_set.features if _tells(training_set, name)]
    if answers:
        what = "moves with" if training_set.horizon else "(almost)"
        what += (
            f" the change of {training_set.column} that is to be forecast"
            if training_set.horizon
            else (f" the target, {training_set.column}, itself")
        )
        found.append(f"{_listed(answers)}: {what}; leave it out, or use what is known when a prediction is wanted.")
    return [*found, *_too_late(training_set), *_in_both_parts(training_set)]


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))


def _truth_lies_ahead(training_set: TrainingSet) -> bool:
    frame, horizon = training_set.frame, training_set.horizon
    assert horizon is not None
    expected = _by_series(training_set, frame["current"]).shift(-horizon)
    return bool(np.array_equal(expected.to_numpy(), frame["truth"].to_numpy(dtype=np.float64), equal_nan=True))


def _by_series(training_set: TrainingSet, column: pd.Series[Any]) -> Any:
    if training_set.horizon is None or training_set.group is None:
        return column
    return column.groupby(training_set.frame[training_set.group], sort=False)


# -------------------------------------------------------------------------------------------- features that tell


def _tells(training_set: TrainingSet, name: str) -> bool:
    frame = training_set.frame
    feature = frame[name]
    if training_set.horizon is None:
        known = np.flatnonzero(frame["target"].notna())
        known = known[:: max(1, len(known) // _LOOKED_AT)]
        feature, target = feature.iloc[known], frame["target"].iloc[known]
    if training_set.classes is not None:
        return _separates(feature, target)
    if feature.dtype.kind not in "ifb":
        return False
    feature = feature.astype(np.float64)
    if training_set.horizon is None:
        ranks = _correlation(feature.rank(), target.rank()), _correlation(feature, target)
        return max(ranks) > _ALMOST
    truth, current = frame["truth"].to_numpy(dtype=np.float64), frame["current"].to_numpy(dtype=np.float64)
    with np.errstate(all="ignore"):
        answers = (truth - current, (truth - current) / current)
    guesses = (feature, _by_series(training_set, feature).diff(training_set.horizon))
    return any(_correlation(guess, answer) > _ALMOST_THE_CHANGE for guess in guesses for answer in answers)


def _correlation(one: pd.Series[Any], answer: npt.ArrayLike) -> float:
    guess, other = one.to_numpy(), np.asarray(answer)
    known = np.isfinite(guess) & np.isfinite(other)
    a, b = guess[known], other[known]
    if len(a) < _FEWEST or a.std() == 0 or b.std() == 0:
        return 0.0
    return abs(float(np.corrcoef(a, b)[0, 1]))


def _separates(feature: pd.Series[Any], target: pd.Series[Any]) -> bool:
    """Whether one feature alone tells the class: by its value, by ranges of it, or by being missing."""
    classes, labels = pd.factorize(target)
    if np.bincount(classes).min() < _FEWEST:
        return False
    missing = feature.isna().to_numpy()
    guesses = [missing.astype(np.int64)]
    if feature.dtype.kind in "ifb":
        tree = DecisionTreeClassifier(max_leaf_nodes=len(labels), class_weight="balanced", random_state=0)
        values = feature.to_numpy(dtype=np.float64).reshape(-1, 1)
        if balanced_accuracy_score(classes, tree.fit(values, classes).predict(values)) > _ALMOST:
            return True
    elif feature.dtype.kind == "O" and feature.nunique() <= len(feature) / _FEWEST:
        guesses.append(pd.factorize(feature, use_na_sentinel=False)[0])
    return any(_names_the_class(values, classes) for values in guesses)


def _names_the_class(values: npt.NDArray[np.int64], classes: npt.NDArray[np.int64]) -> bool:
    counts = pd.crosstab(values, classes).to_numpy().astype(np.float64)
    if len(counts) < 2:
        return False
    likeliest = (counts / counts.sum(axis=0)).argmax(axis=1)
    guessed = likeliest[np.unique(values, return_inverse=True)[1]]
    return float(balanced_accuracy_score(classes, guessed)) > _ALMOST


# ------------------------------------------------------------------------------------------ rows in the wrong part


def _too_late(training_set: TrainingSet) -> list[str]:
    frame, time = training_set.frame, training_set.time
    # Groups that are kept apart may well be of the same days, unless their future is asked for.
    if time is None or (training_set.split == "group" and training_set.horizon is None):
        return []
    train, test = frame[frame["split"] == "train"], frame[frame["split"] == "test"]
    begin = test[time].min()
    horizon = training_set.horizon
    gap = f" with a gap of at least {horizon} rows" if horizon else ""
    cure = f"use split: chronological{gap}."
    found = []
    inside = train[time] >= begin
    if inside.any():
        found.append(
            f"{inside.sum():,} of {len(train):,} training rows are as late as the first test row, {_when(begin)}, or "
            f"later: the model was trained on the future of what it is tested on; {cure}"
        )
    truth_times = training_set.truth_times()
    if truth_times is not None:
        early = train[(truth_times.loc[train.index] >= begin) & ~inside]
        if not early.empty:
            first = early.index[0]
            found.append(
                f"{len(early):,} training rows before the first test row, {_when(begin)}, have their truth in the "
                f"test: the row of {_when(early[time].iloc[0])} has the {training_set.column} of "
                f"{_when(truth_times[first])}; {cure}"
            )
    return found


def _when(time: Any) -> str:
    if not isinstance(time, pd.Timestamp):
        return str(time)
    return f"{time:%Y-%m-%d}" if time == time.normalize() else f"{time:%Y-%m-%d %H:%M:%S}"


def _in_both_parts(training_set: TrainingSet) -> list[str]:
    frame, time = training_set.frame, training_set.time
    train, test = frame[frame["split"] == "train"], frame[frame["split"] == "test"]
    if time is not None and train[time].max() < test[time].min():
        return []  # a series goes on: that is what is asked
    group, key = training_set.group, list(training_set.key)
    if group is not None:
        both = test[group].isin(train[group].unique())
        if not both.any():
            return []
        return [
            f"{both.sum():,} of {len(test):,} test rows are of a {group} that is trained on, too, as "
            f"{test.loc[both, group].iloc[0]!r}: the model may know it again; use split: group."
        ]
    if key:
        again = pd.MultiIndex.from_frame(test[key]).isin(pd.MultiIndex.from_frame(train[key]))
        both = pd.Series(again, index=test.index)
        if both.any():
            first = ", ".join(f"{name} {test.loc[both, name].iloc[0]!r}" for name in key)
            return [
                f"{both.sum():,} of {len(test):,} test rows have the key of a training row, as {first}: the model may "
                f"know it again; keep one row of a key, or give group: {key[0]} and split: group."
            ]
    same = _same_rows(training_set, train, test)
    if same <= _SAME_ROWS * len(test):
        return []
    return [
        f"{same:,} of {len(test):,} test rows have the features of a training row, all of them: rows come more than "
        "once; keep one of each, or name what belongs together as group and use split: group."
    ]


def _same_rows(training_set: TrainingSet, train: pd.DataFrame, test: pd.DataFrame) -> int:
    """Count test rows that are training rows, too, where chance makes none: two features or more are fine-grained."""
    fine = [name for name in training_set.features if train[name].nunique() > len(train) / 5]
    if len(fine) < 2:
        return 0
    rows = [pd.util.hash_pandas_object(training_set.inputs(part), index=False) for part in (train, test)]
    return int(rows[1].isin(rows[0]).sum())
