"""From a table to a training set: the features, what is learned, and which rows it is trained and tested on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import refuse, written
from mlops_dagster.modeling.features import (
    Features,
    check_columns,
    check_features,
    features_of,
    kept_columns,
    plain,
    reached_by_look_back,
)
from mlops_dagster.modeling.splits import Split, split_rows
from mlops_dagster.modeling.targets import Label, with_target
from mlops_dagster.spec.model import Declaration

MIN_TRAIN_ROWS = 50
MIN_TEST_ROWS = 10


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
    def example(self) -> pd.DataFrame:
        """A few training rows as the model sees them, each column with a value at least once.

        Written down without one, as MLflow does with its examples, a column of texts comes back as one of numbers.
        """
        inputs = self.X_train
        return inputs.loc[list(dict.fromkeys([*inputs.notna().idxmax(), *inputs.index[:5]]))]

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
    if horizon is None and target.horizon is not None:
        horizon = math.ceil(target.horizon * len(table)) if target.horizon < 1 else int(target.horizon)
    test_size = declaration.split.test_size if test_size is None else test_size
    if not 0.0 < test_size < 1.0:
        raise refuse("test_size", test_size, "give a number above 0 and below 1.")

    kept = kept_columns(declaration)
    check_columns("target.column", [target.column], table)
    check_columns("declaration", [*kept, *filter(None, [declaration.split.column])], table)
    table = _in_order(declaration, table)
    made = features_of(declaration, table, features)
    looks = check_features(declaration, table, made, features, horizon)

    frame = made.copy()
    for at, name in enumerate(name for name in kept if name not in made.columns):
        frame.insert(at, name, plain(table[name]))
    frame, classes = with_target(declaration, table, frame, horizon)
    enough = np.ones(len(table), dtype=bool)
    if features is not None and horizon is not None:
        enough = reached_by_look_back(declaration, table, made)
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
    cures = {"group": "give another split.seed or test_size", "chronological": "give another test_size"}
    other = cures.get(made.split, "use split: stratified")
    for part in ("train", "test"):
        there = made.targets(made.rows(part)).unique()
        if len(there) < 2:
            cure = f"nothing can be learned or measured from one class; {other}, or more rows."
            raise refuse("split.kind", made.split, f"all {part} rows are of class {written(there[0])}: {cure}")
    trained = set(made.targets(made.rows("train")).unique())
    unseen = [one for one in made.targets(made.rows("test")).unique() if one not in trained]
    if unseen:
        cure = f"{other}, leave its rows out, or join rare classes to one."
        raise refuse(
            "split.kind", made.split, f"no training row is of class {written(unseen[0])}, which is tested on; {cure}"
        )


def _in_order(declaration: Declaration, table: pd.DataFrame) -> pd.DataFrame:
    for said, column in (("time", declaration.time), ("group", declaration.group)):
        missing = np.flatnonzero(table[column].isna()) if column else np.array([])
        if len(missing):
            cure = f"every row needs its {said}; give it one, or leave the row out."
            raise refuse(said, column, f"it is missing in row {missing[0] + 1:,}; {cure}")
    if declaration.time is None:
        return table.reset_index(drop=True)
    return table.sort_values(declaration.time, kind="stable").reset_index(drop=True)
