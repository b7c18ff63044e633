"""From prices to a training set: the two recipes, and the table that they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import refuse
from mlops_dagster.ml.features import ARTICLE_FEATURES, HONEST_FEATURES, article_features, honest_features
from mlops_dagster.ml.splits import chronological_split, shuffled_split
from mlops_dagster.modeling.splits import Split
from mlops_dagster.pipelines import HORIZON, RECIPE, TEST_SIZE

MIN_TRAIN_ROWS = 50
MIN_TEST_ROWS = 10


@dataclass(frozen=True)
class Recipe:
    """One way of making a training set from prices.

    Parameters
    ----------
    name : str
        As users write it.
    features : mapping of str to str
        The model's inputs, in the order in which it sees them, and what each holds.
    compute : callable
        From prices to these features, one row per price row; NaN in the first rows, if they have no full look-back.
    target : {"price", "return"}
        What the model learns of the price `horizon` rows later: itself, or its change relative to today's.
    horizon : callable
        From the number of price rows to the horizon that is used when none is given, in rows (trading days).
    split : callable
        From (rows, test_size, horizon) to the split.
    test_size : float
        The share of the rows that is tested on when none is given.
    """

    name: str
    features: Mapping[str, str]
    compute: Callable[[pd.DataFrame], pd.DataFrame]
    target: Literal["price", "return"]
    horizon: Callable[[int], int]
    split: Callable[[int, float, int], Split]
    test_size: float = 0.33


RECIPES: dict[str, Recipe] = {
    "honest": Recipe(
        name="honest",
        features=HONEST_FEATURES,
        compute=honest_features,
        target="return",
        horizon=lambda rows: 1,
        split=lambda rows, test_size, horizon: chronological_split(rows, test_size=test_size, gap=horizon),
    ),
    # Exactly the blog's, seed and leakage included.
    "article": Recipe(
        name="article",
        features=ARTICLE_FEATURES,
        compute=article_features,
        target="price",
        horizon=lambda rows: math.ceil(0.01 * rows),
        split=lambda rows, test_size, horizon: shuffled_split(rows, test_size=test_size, seed=42),
    ),
}


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A table to train and test on, with what is needed to understand it.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per trading day, in chronological order:

        - Date
        - the features
        - price: AdjClose on that day
        - truth: AdjClose `horizon` rows later; NaN in the last `horizon` rows
        - target: what the model learns, see :class:`Recipe`; NaN where truth is
        - split: "train", "gap", "test" or "forecast" (the rows whose truth isn't known yet)
        - position: the row's place within its split, as the model sees it. A shuffled split has its own order, and
          a forest's bootstrap depends on it.
    features : tuple of str
        The model's inputs, in the order in which it sees them.
    horizon : int
        How many rows ahead the truth lies.
    test_size : float
        The share of the rows with a known truth that is tested on.
    """

    frame: pd.DataFrame
    recipe: str
    features: tuple[str, ...]
    horizon: int
    test_size: float

    def rows(self, split: str) -> pd.DataFrame:
        """Return the rows of one split in the order in which the model sees them."""
        rows: pd.DataFrame = self.frame[self.frame["split"] == split].sort_values("position", kind="stable")
        return rows

    @property
    def X_train(self) -> pd.DataFrame:  # noqa: N802 - as scikit-learn calls it
        """The features of the training rows, shape (training rows, features)."""
        features: pd.DataFrame = self.rows("train")[list(self.features)]
        return features

    @property
    def y_train(self) -> pd.Series[float]:
        """The target of the training rows."""
        return self.rows("train")["target"]

    @property
    def X_test(self) -> pd.DataFrame:  # noqa: N802 - as scikit-learn calls it
        """The features of the test rows, shape (test rows, features)."""
        features: pd.DataFrame = self.rows("test")[list(self.features)]
        return features

    @property
    def y_test(self) -> pd.Series[float]:
        """The target of the test rows."""
        return self.rows("test")["target"]

    def to_price(self, predicted: npt.ArrayLike, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Turn predicted targets of some rows into price forecasts."""
        values = np.asarray(predicted, dtype=np.float64)
        if RECIPES[self.recipe].target == "price":
            return values
        return rows["price"].to_numpy() * (1.0 + values)

    def with_split(self, split: Split) -> TrainingSet:
        """Return the same rows, split otherwise; rows that are in neither part become the gap."""
        names, positions = np.full(len(self.frame), "gap", dtype=object), np.zeros(len(self.frame), dtype=np.int64)
        names[self.frame["truth"].isna().to_numpy()] = "forecast"
        for name, its_rows in (("train", split.train), ("test", split.test)):
            names[its_rows] = name
            positions[its_rows] = np.arange(len(its_rows))
        for name in ("gap", "forecast"):
            positions[names == name] = np.arange((names == name).sum())
        return replace(self, frame=self.frame.assign(split=names, position=positions))

    def metadata(self) -> dict[str, str]:
        """Return everything but the frame as texts, to be kept beside the table."""
        return {
            "recipe": self.recipe,
            "features": ",".join(self.features),
            "horizon": str(self.horizon),
            "test_size": repr(self.test_size),
        }

    @classmethod
    def from_table(cls, frame: pd.DataFrame, metadata: Mapping[str, str]) -> TrainingSet:
        """Put a training set together again from its table and its :meth:`metadata`.

        Raises
        ------
        ValueError
            If it isn't a training set's table: a piece of metadata or a column is missing.
        """
        missing = {"recipe", "features", "horizon", "test_size"} - set(metadata)
        if missing:
            raise ValueError(f"not a training set's table, its metadata lacks {sorted(missing)}; make it anew.")
        features = tuple(metadata["features"].split(","))
        absent = [name for name in _columns(features) if name not in frame.columns]
        if absent:
            raise ValueError(f"not a training set's table, it lacks the columns {absent}; make it anew.")
        return cls(
            frame=frame,
            recipe=RECIPE.check(metadata["recipe"]),
            features=features,
            horizon=int(metadata["horizon"]),
            test_size=float(metadata["test_size"]),
        )


def make_training_set(
    prices: pd.DataFrame, *, recipe: str = "honest", horizon: int | None = None, test_size: float | None = None
) -> TrainingSet:
    """Compute features, target and split.

    Parameters
    ----------
    prices : pandas.DataFrame
        Validated prices, see :func:`mlops_dagster.ml.prices.validate_prices`.
    recipe : {"honest", "article"}
        How to make it, see `RECIPES`.
    horizon : int, optional
        How many rows ahead to forecast. Default: 1 (honest), 1 % of the rows, rounded up (article).
    test_size : float, optional
        The share of the rows to test on. Default: 0.33.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        For an unknown recipe, a bad horizon or test size, and if too few rows are left to train or test on.
    """
    chosen = RECIPES[RECIPE.check(recipe)]
    horizon = chosen.horizon(len(prices)) if horizon is None else HORIZON.check(horizon)
    test_size = chosen.test_size if test_size is None else TEST_SIZE.check(test_size)

    frame = chosen.compute(prices)[list(chosen.features)]
    frame.insert(0, "Date", prices["Date"])
    frame["price"] = prices["AdjClose"]
    frame["truth"] = prices["AdjClose"].shift(-horizon)
    frame["target"] = frame["truth"] if chosen.target == "price" else frame["truth"] / frame["price"] - 1.0
    frame = frame[frame[list(chosen.features)].notna().all(axis=1)].reset_index(drop=True)

    known = max(len(frame) - horizon, 0)
    enough = known * (1 - test_size) >= MIN_TRAIN_ROWS and known * test_size >= MIN_TEST_ROWS
    split = chosen.split(known, test_size, horizon) if enough else None
    if split is None or len(split.train) < MIN_TRAIN_ROWS:
        cure = (
            f"of {len(prices):,} rows too few are left, at least {MIN_TRAIN_ROWS} are needed for training and "
            f"{MIN_TEST_ROWS} for testing; give a smaller horizon, more prices or another test_size."
        )
        raise refuse("horizon", horizon, cure)

    return TrainingSet(frame, recipe, tuple(chosen.features), horizon, test_size).with_split(split)


def _columns(features: tuple[str, ...]) -> list[str]:
    return ["Date", *features, "price", "truth", "target", "split", "position"]
