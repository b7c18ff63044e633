"""From a table to a training set: the features, what is learned, and which rows it is trained and tested on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import refuse
from mlops_dagster.ml.splits import Split
from mlops_dagster.modeling.features import (
    Features,
    check_columns,
    features_of,
    features_that_look_at_other_rows,
    features_that_see_the_target,
    plain,
)
from mlops_dagster.modeling.splits import split_rows
from mlops_dagster.spec.model import Declaration

MIN_TRAIN_ROWS = 50
MIN_TEST_ROWS = 10
_OWN = ("target", "current", "truth", "split", "position")
Label = str | int | bool


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A table to train and test on, with what is needed to understand it.

    Parameters
    ----------
    frame : pandas.DataFrame
        The rows in the table's order (that of time, if there is one):

        - the key, time, group, the columns of the gate's slices and of the baseline
        - the features
        - target: what the model learns; missing where it isn't known
        - for forecasts also current (the column as it is in this row) and truth (as it is `horizon` rows later)
        - split: "train", "gap" (in neither part), "test" or "unknown" (the target isn't known yet)
        - position: the row's place within its split, as the model sees it. A random split has its own order, and a
          forest's bootstrap depends on it.
    features : tuple of str
        The model's inputs, in the order in which it sees them.
    column : str
        The column that is predicted.
    classes : tuple, optional
        Of a classification: the classes, sorted as scikit-learn sorts them.
    positive : str, int or bool, optional
        Of two classes: which precision, recall and the like are about.
    horizon : int, optional
        Of a forecast: how many rows ahead the truth lies, within its group if there are any.
    looks_at_other_rows : tuple of str
        Features that were found to look at later rows or, without time, at other rows.
    left_out : int
        First rows of a series that the features' look-back doesn't reach.
    """

    frame: pd.DataFrame
    task: Literal["regression", "classification"]
    features: tuple[str, ...]
    column: str
    split: str
    test_size: float
    classes: tuple[Label, ...] | None = None
    positive: Label | None = None
    horizon: int | None = None
    learn: Literal["value", "difference", "return"] = "value"
    key: tuple[str, ...] = ()
    time: str | None = None
    group: str | None = None
    looks_at_other_rows: tuple[str, ...] = ()
    left_out: int = 0

    def rows(self, split: str) -> pd.DataFrame:
        """Return the rows of one split in the order in which the model sees them."""
        rows: pd.DataFrame = self.frame[self.frame["split"] == split].sort_values("position", kind="stable")
        return rows

    def inputs(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return what the model sees of some rows, shape (rows, features)."""
        return rows[list(self.features)]

    def targets(self, rows: pd.DataFrame) -> pd.Series[Any]:
        """Return what the model learns of some rows whose target is known: numbers, or classes of their own type."""
        if self.classes is None:
            return rows["target"]
        return rows["target"].astype(type(self.classes[0]) if not isinstance(self.classes[0], str) else object)

    def truth(self, rows: pd.DataFrame) -> npt.NDArray[Any]:
        """Return what a prediction of some rows is compared with: of a forecast, the value `horizon` rows later."""
        return (self.targets(rows) if self.horizon is None else rows["truth"]).to_numpy()

    def to_value(self, predicted: npt.ArrayLike, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Turn predicted targets of some rows into what is forecast: a change becomes a value again."""
        values = np.asarray(predicted, dtype=np.float64)
        if self.learn == "value":
            return values
        current = rows["current"].to_numpy()
        return current + values if self.learn == "difference" else current * (1.0 + values)

    @property
    def X_train(self) -> pd.DataFrame:  # noqa: N802 - as scikit-learn calls it
        """What the model sees of the training rows."""
        return self.inputs(self.rows("train"))

    @property
    def y_train(self) -> pd.Series[Any]:
        """The target of the training rows."""
        return self.targets(self.rows("train"))

    @property
    def X_test(self) -> pd.DataFrame:  # noqa: N802 - as scikit-learn calls it
        """What the model sees of the test rows."""
        return self.inputs(self.rows("test"))

    @property
    def y_test(self) -> pd.Series[Any]:
        """The target of the test rows."""
        return self.targets(self.rows("test"))

    @property
    def groups_train(self) -> pd.Series[Any] | None:
        """The group of the training rows, if rows belong to groups."""
        return None if self.group is None else self.rows("train")[self.group]

    def truth_times(self) -> pd.Series[Any] | None:
        """Return, of forecasts, when the truth of each row of the frame is; missing where that hasn't come yet."""
        if self.horizon is None or self.time is None:
            return None
        times = self.frame[self.time]
        series = times if self.group is None else times.groupby(self.frame[self.group], sort=False)
        return series.shift(-self.horizon)

    def with_split(self, split: Split) -> TrainingSet:
        """Return the same rows, split otherwise; rows that are in neither part become the gap."""
        names, positions = np.full(len(self.frame), "gap", dtype=object), np.zeros(len(self.frame), dtype=np.int64)
        names[self._unknown()] = "unknown"
        for name, its_rows in (("train", split.train), ("test", split.test)):
            names[its_rows] = name
            positions[its_rows] = np.arange(len(its_rows))
        for name in ("gap", "unknown"):
            positions[names == name] = np.arange((names == name).sum())
        return replace(self, frame=self.frame.assign(split=names, position=positions))

    def _unknown(self) -> npt.NDArray[np.bool_]:
        return self.frame["target" if self.horizon is None else "truth"].isna().to_numpy()

    def metadata(self) -> dict[str, str]:
        """Return everything but the frame as texts, to be kept beside the table."""
        return {one.name: json.dumps(getattr(self, one.name)) for one in fields(self) if one.name != "frame"}

    @classmethod
    def from_table(cls, frame: pd.DataFrame, metadata: Mapping[str, str]) -> TrainingSet:
        """Put a training set together again from its table and its :meth:`metadata`.

        Raises
        ------
        ValueError
            If it isn't a training set's table: a piece of metadata or a column is missing.
        """
        names = [one.name for one in fields(cls) if one.name != "frame"]
        missing = sorted(set(names) - set(metadata))
        if missing:
            raise ValueError(f"not a training set's table, its metadata lacks {missing}; make it anew.")
        said = {name: json.loads(metadata[name]) for name in names}
        said = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
        absent = [name for name in (*said["features"], "target", "split", "position") if name not in frame.columns]
        if absent:
            raise ValueError(f"not a training set's table, it lacks the columns {absent}; make it anew.")
        # A store gives None for a missing text; scikit-learn's imputers and encoders look for NaN.
        return cls(frame=pd.DataFrame({name: plain(column) for name, column in frame.items()}), **said)


def make_training_set(
    declaration: Declaration,
    table: pd.DataFrame,
    *,
    features: Features | None = None,
    test_size: float | None = None,
    horizon: int | None = None,
) -> TrainingSet:
    """Compute features and target, and split the rows.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows that fulfil the contract.
    features : callable, optional
        The function that the declaration names.
    test_size, horizon : optional
        Others than the declaration's.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If a column isn't there, the features know what they mustn't, or the rows can't be split as declared: too few
        of them, or of a class.
    mlops_dagster.spec.functions.UserCodeError
        If the function fails.
    """
    target = declaration.target
    if horizon is not None and target.horizon is None:
        raise refuse("horizon", horizon, f"{target.column} isn't forecast: give target.horizon in the declaration.")
    horizon = target.horizon if horizon is None else horizon
    test_size = declaration.split.test_size if test_size is None else test_size
    if not 0.0 < test_size < 1.0:
        raise refuse("test_size", test_size, "give a number above 0 and below 1.")

    kept = _kept_columns(declaration)
    check_columns("target.column", [target.column], table)
    check_columns("declaration", [*kept, *filter(None, [declaration.split.column])], table)
    table = _in_order(declaration, table)
    made = features_of(declaration, table, features)
    _check_features(declaration, table, made, features, horizon)
    looks = features_that_look_at_other_rows(declaration, table, features) if features is not None else ()
    if looks and not declaration.gate.allow_leaks:
        whom = "the future: rows that come later" if declaration.time else "other rows, also those that are tested on"
        cure = "compute them from the row and those before it" if declaration.time else "compute them row by row"
        raise refuse("features", ", ".join(looks), f"looks at {whom}; {cure}, or fit them inside a Pipeline.")

    frame = made.copy()
    for at, name in enumerate(name for name in kept if name not in made.columns):
        frame.insert(at, name, plain(table[name]))
    frame, classes = _with_target(declaration, table, frame, horizon)
    enough = _reached(declaration, table, made) if features is not None else np.ones(len(table), dtype=bool)
    frame, table = frame[enough].reset_index(drop=True), table[enough].reset_index(drop=True)
    positive = None
    if classes is not None and len(classes) == 2:
        positive = classes[1] if target.positive is None else target.positive
    unsplit = TrainingSet(
        frame=frame,
        task=declaration.task,
        features=tuple(made.columns),
        column=target.column,
        split=declaration.split.kind,
        test_size=test_size,
        classes=classes,
        positive=positive,
        horizon=horizon,
        learn=target.learn,
        key=tuple(declaration.key),
        time=declaration.time,
        group=declaration.group,
        looks_at_other_rows=looks,
        left_out=int((~enough).sum()),
    )
    return _split(declaration, unsplit, table)


def _split(declaration: Declaration, unsplit: TrainingSet, table: pd.DataFrame) -> TrainingSet:
    frame, declared, test_size = unsplit.frame, declaration.split, unsplit.test_size
    known, column = np.flatnonzero(frame["target"].notna()), declared.column
    split = None
    # A column says itself how many there are.
    if column or (len(known) * (1 - test_size) >= MIN_TRAIN_ROWS and len(known) * test_size >= MIN_TEST_ROWS):
        split = split_rows(
            declared,
            test_size,
            known,
            targets=frame["target"],
            groups=frame[unsplit.group] if unsplit.group else None,
            times=frame[unsplit.time] if unsplit.time else None,
            truth_times=unsplit.truth_times(),
            given=table[column] if column else None,
        )
    if split is None or len(split.train) < MIN_TRAIN_ROWS or len(split.test) < MIN_TEST_ROWS:
        parts = "" if split is None else f" ({len(split.train):,} to train, {len(split.test):,} to test)"
        cures = ["more rows", "another test_size" if not column else "other parts"]
        cures += ["a smaller horizon"] if unsplit.horizon else []
        why = (
            f"of {len(table):,} rows {len(known):,} have a known target{parts}, at least {MIN_TRAIN_ROWS} are needed "
            f"for training and {MIN_TEST_ROWS} for testing; give {', '.join(cures[:-1])} or {cures[-1]}."
        )
        raise refuse("split.column", column, why) if column else refuse("test_size", test_size, why)
    made = unsplit.with_split(split)
    if made.classes is not None:
        _check_classes(made)
    return made


def _check_classes(made: TrainingSet) -> None:
    for part in ("train", "test"):
        there = made.targets(made.rows(part)).unique()
        if len(there) < 2:
            cure = "nothing can be learned or measured from one class; use split: stratified, or give more rows."
            raise refuse("split.kind", made.split, f"all {part} rows are of class {there[0]!r}: {cure}")
    trained = set(made.targets(made.rows("train")).unique())
    unseen = [one for one in made.targets(made.rows("test")).unique() if one not in trained]
    if unseen:
        cure = "use split: stratified, leave its rows out, or join rare classes to one."
        raise refuse("split.kind", made.split, f"no training row is of class {unseen[0]!r}, which is tested on; {cure}")


def _kept_columns(declaration: Declaration) -> list[str]:
    said = [
        *declaration.key,
        declaration.time,
        declaration.group,
        *declaration.gate.slices,
        declaration.baseline.column,
    ]
    return [*dict.fromkeys(name for name in said if name is not None)]


def _in_order(declaration: Declaration, table: pd.DataFrame) -> pd.DataFrame:
    for said, column in (("time", declaration.time), ("group", declaration.group)):
        missing = np.flatnonzero(table[column].isna()) if column else np.array([])
        if len(missing):
            cure = f"every row needs its {said}; give it one, or leave the row out."
            raise refuse(said, column, f"it is missing in row {missing[0] + 1:,}; {cure}")
    if declaration.time is None:
        return table.reset_index(drop=True)
    return table.sort_values(declaration.time, kind="stable").reset_index(drop=True)


def _check_features(
    declaration: Declaration, table: pd.DataFrame, made: pd.DataFrame, function: Features | None, horizon: int | None
) -> None:
    kept, column = _kept_columns(declaration), declaration.target.column
    for name in [*made.columns, *kept]:
        if name.lower() in _OWN:
            cure = (
                f"a training set has a column of its own by this name; call it otherwise, as {name}_ (by a function)."
            )
            raise refuse("features" if name in made.columns else "declaration", name, cure)
    for name in made.columns:
        if name in kept and not made[name].equals(plain(table[name])):
            raise refuse("features", name, f"the table has other values by this name; call it otherwise, as {name}_.")
    if declaration.split.column in made.columns:
        raise refuse("features", declaration.split.column, "it says which rows are tested on; leave it out.")
    if horizon is not None:
        return
    seen: tuple[str, ...] = (column,) if column in made.columns else ()
    if not seen and function is not None:
        seen = features_that_see_the_target(declaration, table, function)
    if seen:
        cure = f"they are made from {column}, the target, which nobody knows when a prediction is wanted; leave it out."
        raise refuse("features", ", ".join(seen), cure)


def _with_target(
    declaration: Declaration, table: pd.DataFrame, frame: pd.DataFrame, horizon: int | None
) -> tuple[pd.DataFrame, tuple[Label, ...] | None]:
    column = plain(table[declaration.target.column])
    if declaration.task == "classification":
        said_boolean = pd.api.types.infer_dtype(table[declaration.target.column], skipna=True) == "boolean"
        classes = _classes(declaration, column, said_boolean)
        return frame.assign(target=column), classes
    if column.dtype.kind not in "if":
        example = next(iter(column.dropna().head(1)), None)
        cure = f"{declaration.target.column} is no number, as a regression needs; give task: classification."
        raise refuse("target", example, cure)
    column = column.astype(np.float64)
    infinite = np.flatnonzero(np.isinf(column))
    if len(infinite):
        raise refuse("target", float(column.iloc[infinite[0]]), f"in row {infinite[0] + 1:,}; give a finite number.")
    if horizon is None:
        return frame.assign(target=column), None
    series = column if declaration.group is None else column.groupby(table[declaration.group], sort=False)
    truth, learn = series.shift(-horizon), declaration.target.learn
    if learn == "return" and (column == 0).any():
        row = int(np.flatnonzero(column == 0)[0])
        cure = f"{declaration.target.column} is 0 in row {row + 1:,}, from which there is no relative change; "
        raise refuse("target.learn", learn, cure + "give difference or value.")
    change = {"value": truth, "difference": truth - column, "return": truth / column - 1.0}[learn]
    return frame.assign(current=column, truth=truth, target=change), None


def _classes(declaration: Declaration, column: pd.Series[Any], said_boolean: bool) -> tuple[Label, ...]:
    known = column.dropna()
    if column.dtype.kind == "f":
        if said_boolean:
            known = known.astype(bool)
        elif (known == np.floor(known)).all():
            known = known.astype(np.int64)
        else:
            example = float(known[known != np.floor(known)].iloc[0])
            raise refuse("target", example, "classes are texts, integers or truth values; give task: regression.")
    elif column.dtype.kind == "M":
        raise refuse("target", str(known.iloc[0]), "a date is no class; choose another target.")
    classes = tuple(one.item() if isinstance(one, np.generic) else one for one in np.unique(known.to_numpy()))
    if len(classes) < 2:
        cure = "there is nothing to learn: give rows of at least two classes."
        raise refuse(
            "target", classes[0] if classes else None, f"all rows with a known target are of one class; {cure}"
        )
    wanted = declaration.target.positive
    if wanted is not None and (len(classes) != 2 or wanted not in classes):
        cure = f"the classes are {', '.join(map(repr, classes[:20]))}; " + (
            "give one of them." if len(classes) == 2 else "with more than two, none is the positive one."
        )
        raise refuse("target.positive", wanted, cure)
    return classes


def _reached(declaration: Declaration, table: pd.DataFrame, made: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Say which rows the look-back of a function's features reaches: not the first ones of a series.

    A feature that is a column of the table is missing where the table says so, and one that is never known in a series
    says nothing about a look-back.
    """
    reached = np.ones(len(table), dtype=bool)
    if declaration.time is None:
        return reached
    series = np.zeros(len(table)) if declaration.group is None else pd.factorize(table[declaration.group])[0]
    for name, column in made.items():
        if name in table.columns and column.equals(plain(table[name])):
            continue
        known = column.notna()
        seen = known.groupby(series).cummax()
        ever = known.groupby(series).transform("any")
        reached &= (seen | ~ever).to_numpy()
    return reached
