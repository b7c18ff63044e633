"""How sure a difference is: a metric on resamples of the rows that both models were measured on.

The paired bootstrap of B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 16. Drawn is what
may be taken as independent: rows; where rows belong to groups, whole groups; and where they have an order in time,
moving blocks of it (H. Künsch, Annals of Statistics 17 (1989), 1217-1241).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.modeling.metrics import Metric
from mlops_dagster.modeling.outputs import Outputs
from mlops_dagster.modeling.training_set import TrainingSet

MIN_UNITS = 10
"""So many rows, groups or blocks have to be there before a share of resamples says anything."""
RESAMPLES = 2_000
RESAMPLES_OF_SLOW = 500
"""Of a metric that only scikit-learn itself can measure, at some milliseconds a call."""
_ROWS_DRAWN = 200_000_000
"""So many rows are drawn at most, in all resamples together: a million test rows are resampled 200 times."""

Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Units:
    """What is drawn in place of single rows, since rows that belong together say the same thing again.

    Parameters
    ----------
    members : list of array of int
        The rows of each unit; units in the order of time if they have one.
    length : int
        How many units in a row are drawn as one block.
    said : str
        What a block is: rows, groups, blocks of 14 times.
    """

    members: Sequence[Rows]
    length: int
    said: str

    @property
    def blocks(self) -> int:
        """How many there are that don't overlap."""
        return len(self.members) // self.length

    def draw(self, resamples: int, seed: int = 0) -> Iterator[Rows]:
        """Yield the rows of each resample, the same ones each time."""
        units, draws = len(self.members), np.random.default_rng(seed)
        total = sum(map(len, self.members))
        single = np.concatenate(self.members) if total == units else None
        for _ in range(resamples):
            starts = draws.integers(0, units - self.length + 1, -(-units // self.length))
            drawn = (starts[:, None] + np.arange(self.length)).ravel()[:units]
            yield single[drawn] if single is not None else np.concatenate([self.members[one] for one in drawn])


def units_of(training_set: TrainingSet, rows: pd.DataFrame) -> Units:
    """Return what may be drawn of some rows: rows, moving blocks where they have an order, whole groups.

    Where rows have both an order and a group, groups are drawn if there are enough of them, and blocks of time across
    all groups otherwise. A block is as long as the horizon, or the cube root of the number of times if that is more.
    """
    time, group = training_set.time, training_set.group
    by_group = [] if group is None else members_of(rows[group])
    if group is not None and (time is None or len(by_group) >= MIN_UNITS):
        return Units(by_group, 1, "groups")
    if time is None:
        return Units([np.array([place]) for place in range(len(rows))], 1, "rows")
    times = members_of(rows[time])
    length = min(max(math.ceil(len(times) ** (1 / 3)), training_set.horizon or 1), max(len(times), 1))
    return Units(times, length, f"blocks of {length} times" if length > 1 else "times")


def members_of(column: pd.Series[Any]) -> list[Rows]:
    """Return the places of each value of a column, in the order of the values; what is missing is a value, too."""
    codes, _ = pd.factorize(column, sort=True, use_na_sentinel=False)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


class Resamples:
    """The metric of several models' answers on the same resamples.

    Parameters
    ----------
    truth : array of shape (rows,)
        What the answers are compared with.
    """

    def __init__(self, units: Units, truth: npt.NDArray[Any], metric: Metric) -> None:
        self.units, self.truth, self.metric = units, truth, metric
        most = RESAMPLES if metric.declared in _QUICK else RESAMPLES_OF_SLOW
        self.count = max(200, min(most, _ROWS_DRAWN // max(len(truth), 1)))
        self._measured: dict[int, tuple[Outputs, Floats]] = {}

    def measure(self, outputs: Outputs, rows: Rows | None = None) -> Floats:
        """Measure answers on each resample; NaN where the metric has no meaning.

        Parameters
        ----------
        rows : array of int, optional
            Only these, as far as they are drawn. Not given: all.
        """
        if rows is None and id(outputs) in self._measured:
            return self._measured[id(outputs)][1]
        measure = _quick(self.metric, outputs, self.truth) or (
            lambda drawn: self.metric.measure(outputs, self.truth, drawn)
        )
        among = np.ones(len(self.truth), dtype=bool) if rows is None else np.isin(np.arange(len(self.truth)), rows)
        picks = (drawn[among[drawn]] for drawn in self.units.draw(self.count))
        measured = np.array([measure(drawn) if len(drawn) else math.nan for drawn in picks])
        if rows is None:
            self._measured[id(outputs)] = outputs, measured
        return measured


def _quick(metric: Metric, outputs: Outputs, truth: npt.NDArray[Any]) -> Callable[[Rows], float] | None:
    """Return a way to measure some rows that says the same as scikit-learn's, whose own takes milliseconds a call."""
    make = _QUICK.get(metric.declared)
    found = make and make(outputs, truth)
    everything = np.arange(len(truth))
    if found is None or not math.isclose(found(everything), metric.measure(outputs, truth), rel_tol=1e-9):
        return None
    return found


def _mean(losses: Any) -> Callable[[Rows], float]:
    values = np.asarray(losses, dtype=np.float64)
    return lambda drawn: float(values[drawn].mean())


def _root(outputs: Outputs, truth: npt.NDArray[Any]) -> Callable[[Rows], float]:
    mean = _mean((outputs.predicted - truth) ** 2)
    return lambda drawn: math.sqrt(mean(drawn))


def _explained(outputs: Outputs, truth: npt.NDArray[Any]) -> Callable[[Rows], float]:
    mean = _mean((outputs.predicted - truth) ** 2)

    def measure(drawn: Rows) -> float:
        spread = float(np.var(truth[drawn]))
        return 1 - mean(drawn) / spread if spread > 0 else math.nan

    return measure


def _surprise(outputs: Outputs, truth: npt.NDArray[Any]) -> Callable[[Rows], float] | None:
    if outputs.probabilities is None:
        return None
    places = pd.Index(outputs.labels, dtype=object).get_indexer(pd.Index(truth, dtype=object))
    sure = outputs.probabilities[np.arange(len(truth)), places]
    return _mean(-np.log(np.clip(sure, np.finfo(np.float64).eps, 1.0)))


def _area(outputs: Outputs, truth: npt.NDArray[Any]) -> Callable[[Rows], float] | None:
    """Measure the area under the ROC curve: the share of pairs of a positive and another row in the right order."""
    if outputs.probabilities is None or len(outputs.labels) != 2 or outputs.positive is None:
        return None
    sure = outputs.probabilities[:, outputs.labels.index(outputs.positive)]
    places = np.unique(sure, return_inverse=True)[1]
    positive, size = np.asarray(truth == outputs.positive), int(places.max()) + 1

    def measure(drawn: Rows) -> float:
        is_positive, at = positive[drawn], places[drawn]
        hits, others = np.bincount(at[is_positive], minlength=size), np.bincount(at[~is_positive], minlength=size)
        pairs = int(hits.sum()) * int(others.sum())
        right = float((hits * (np.cumsum(others) - others / 2)).sum())
        return right / pairs if pairs else math.nan

    return measure


_QUICK: Mapping[str, Callable[[Outputs, npt.NDArray[Any]], Callable[[Rows], float] | None]] = {
    "neg_root_mean_squared_error": _root,
    "neg_mean_squared_error": lambda outputs, truth: _mean((outputs.predicted - truth) ** 2),
    "neg_mean_absolute_error": lambda outputs, truth: _mean(np.abs(outputs.predicted - truth)),
    "r2": _explained,
    "accuracy": lambda outputs, truth: _mean(outputs.predicted == truth),
    "neg_log_loss": _surprise,
    "roc_auc": _area,
}
