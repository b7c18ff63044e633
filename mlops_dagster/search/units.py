"""The units of work of a search, and what they yield. Each can run on any machine that has the data.

Trees are dropped as soon as their predictions are added up, so that no forest is ever in memory as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.model_selection._validation import _fit_and_score

from mlops_dagster.search.data import NotForTreesError, Rows, SearchData
from mlops_dagster.search.fronts import remembering
from mlops_dagster.search.growing import NO_LIMIT, Limit, grow, pruned, tree_seeds

Sums = list[list[npt.NDArray[np.float64]]]
"""Sums over trees: for each set of rows, for each output, shape (rows,) or (rows, outputs) or (rows, classes)."""

BATCH = 64
"""How many trees are in memory at the same time."""

_LARGE = 1e300  # sums of more don't overflow


# ---------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Grown:
    """Trees `start` to `stop` - 1 of a forest were grown and added up.

    `trees` counts those again that were grown again under a smaller depth limit.
    """

    start: int
    stop: int
    trees: int
    fit_seconds: float
    predict_seconds: float


@dataclass(frozen=True)
class Segment:
    """The sum of the predictions of trees `start` to `stop` - 1.

    Parameters
    ----------
    limits : tuple of Limit
        The limits of this search under which the trees are these.
    limit, deepest : Limit, int
        The trees were grown and pruned under `limit`, and the deepest had depth `deepest` before it was pruned: what
        decides for which other limits they would be the same trees, see :meth:`holds_for`.
    sums : list of list of array
        See `Sums`.
    """

    start: int
    stop: int
    limits: tuple[Limit, ...]
    limit: Limit
    deepest: int
    sums: Sums = field(repr=False)

    def holds_for(self, limit: Limit) -> bool:
        """Whether the trees would be the same under another limit.

        A tree that is less deep than its limit never met it, so it is the same under every limit that is larger than
        its own depth. One that is exactly as deep as a limit may not be: without the limit, a node there draws from the
        random state before it turns out to have no split, and that changes what the next nodes draw.
        """
        (depth, alpha), (its_depth, its_alpha) = limit, self.limit
        return alpha == its_alpha and (depth == its_depth or self.deepest < min(depth, its_depth))


@dataclass(frozen=True)
class Trees:
    """Trees `start` to `start` + len(trees) - 1 of a forest."""

    start: int
    trees: list[Any]


@dataclass(frozen=True)
class PlainFit:
    """What scikit-learn's own fit-and-score returned."""

    scores: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The unit couldn't do its work; the error says why."""

    error: Exception


@dataclass(frozen=True)
class Done:
    """The unit has nothing more to yield."""


# ------------------------------------------------------------------------------------------------------------ units


@dataclass
class _Accumulator:
    """Running sums that some limits still share."""

    limits: list[Limit]
    sums: Sums
    deepest: int = 0

    def add(self, tree: Any, predictions: Sums) -> None:
        self.deepest = max(self.deepest, int(tree.tree_.max_depth))
        for sums, predicted in zip(self.sums, predictions, strict=True):
            for total, one in zip(sums, predicted, strict=True):
                total += one

    def copy(self, limits: list[Limit]) -> _Accumulator:
        return _Accumulator(limits, _copied(self.sums), self.deepest)


def _copied(sums: Sums) -> Sums:
    return [[array.copy() for array in outputs] for outputs in sums]


def predict(tree: Any, rows: Rows) -> Sums:
    """Return what a tree adds to its forest's prediction; classifiers add probabilities."""
    of_rows = getattr(tree, "predict_proba", tree.predict)
    predictions = [of_rows(X, check_input=False) for X in rows.evaluate]
    return [outputs if isinstance(outputs, list) else [outputs] for outputs in predictions]


@dataclass(frozen=True)
class GrowUnit:
    """Grow trees `start` to `stop` - 1 of one group on one fold, and yield their sums at every mark.

    Parameters
    ----------
    name : str
        What the group is, for people.
    forest_class : type
        One of `growing.FORESTS`.
    seed : int
        The forest's ``random_state``.
    marks : mapping of Limit to tuple of int
        For each limit, at which numbers of trees the sums are wanted, increasing.
    begin : tuple of Segment
        The sums of the trees before `start`, to go on from. Empty: there are none.
    setting : int
        That of the steps in front, see `fronts.Settings`.
    """

    fold: int
    name: str
    forest_class: type
    parameters: Mapping[str, Any]
    seed: int
    start: int
    stop: int
    marks: Mapping[Limit, tuple[int, ...]]
    begin: tuple[Segment, ...] = field(default=(), repr=False)
    setting: int = 0

    @property
    def trees(self) -> int:
        """How many trees it grows at the least."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"fold {self.fold}, trees {self.start} to {self.stop - 1} of {self.name}"

    def run(self, data: SearchData) -> Iterator[Grown | Segment | Failed | Done]:
        """Yield :class:`Grown` for every batch, :class:`Segment` for every mark, then :class:`Done`."""
        try:
            yield from self._grow(data)
        except Exception as error:  # noqa: BLE001 - it is a result, see engine.Unit
            yield Failed(error)
        yield Done()

    def _grow(self, data: SearchData) -> Iterator[Grown | Segment]:
        began = time.perf_counter()
        rows = data.fold(self.fold, self.setting).rows
        seeds = tree_seeds(self.seed, self.stop)
        wanted = sorted({mark for marks in self.marks.values() for mark in marks})
        ends = sorted({marks[-1] for marks in self.marks.values()})
        first = 0 if self.begin else self.start
        accumulators: list[_Accumulator] | None = [
            _Accumulator(sorted(total.limits, reverse=True), _copied(total.sums), total.deepest) for total in self.begin
        ] or None
        position = self.start
        while position < self.stop:
            # A batch may go beyond a mark, but not beyond the last mark of a limit.
            stop = min(position + BATCH, next(end for end in ends if end > position))
            limits = sorted((limit for limit, marks in self.marks.items() if marks[-1] > position), reverse=True)
            trees = self._under_each_depth(
                rows, sorted({depth for depth, _ in limits}, reverse=True), seeds[position:stop]
            )
            fit_seconds = (time.perf_counter() - began) / (stop - position)
            for begin, end in pairwise([position, *(mark for mark in wanted if position < mark < stop), stop]):
                began = time.perf_counter()
                some = {depth: its_trees[begin - position : end - position] for depth, its_trees in trees.items()}
                accumulators = _fold_in(accumulators, limits, some, rows)
                grown = len({id(tree) for its_trees in some.values() for tree in its_trees})
                yield Grown(begin, end, grown, fit_seconds * (end - begin), time.perf_counter() - began)
                for accumulator in accumulators:
                    here = tuple(limit for limit in accumulator.limits if end in self.marks[limit])
                    if here:
                        # The limit under which the sums are certain to be these; see Segment.holds_for.
                        limit = max(accumulator.limits)
                        yield Segment(first, end, here, limit, accumulator.deepest, _copied(accumulator.sums))
            position = stop
            began = time.perf_counter()

    def _under_each_depth(self, rows: Rows, depths: Sequence[int], seeds: Sequence[int]) -> dict[int, list[Any]]:
        """Grow whole trees under the largest depth limit, and again under smaller ones those that reach these."""
        whole = {**self.parameters, "ccp_alpha": 0.0}
        trees = grow(self.forest_class, whole, seeds, depths[0], rows)
        under = {depths[0]: trees}
        for depth in depths[1:]:
            reaching = [number for number, tree in enumerate(trees) if tree.tree_.max_depth >= depth]
            if reaching:
                trees = list(trees)
                again = grow(self.forest_class, whole, [seeds[number] for number in reaching], depth, rows)
                for number, tree in zip(reaching, again, strict=True):
                    trees[number] = tree
            under[depth] = trees
        if not all(np.abs(tree.tree_.value).max() < _LARGE for its_trees in under.values() for tree in its_trees):
            raise NotForTreesError("numbers overflow, and what scikit-learn does then isn't known")
        return under


def _fold_in(
    accumulators: list[_Accumulator] | None, limits: Sequence[Limit], trees: Mapping[int, list[Any]], rows: Rows
) -> list[_Accumulator]:
    """Add trees, whole ones by depth limit, to the sums in their order; sums part as soon as a tree differs."""
    if accumulators is not None:
        for accumulator in accumulators:
            accumulator.limits = [limit for limit in accumulator.limits if limit in limits]
        accumulators = [accumulator for accumulator in accumulators if accumulator.limits]
    for number in range(len(trees[limits[0][0]])):
        predictions: dict[tuple[int, float], Sums] = {}
        parted: list[_Accumulator] = []
        if accumulators is None:
            zeros = [[np.zeros_like(one) for one in outputs] for outputs in predict(trees[limits[0][0]][number], rows)]
            accumulators = [_Accumulator(list(limits), zeros)]
        for accumulator in accumulators:
            sharing: dict[tuple[int, float], list[Limit]] = {}
            for depth, alpha in accumulator.limits:
                sharing.setdefault((id(trees[depth][number]), alpha), []).append((depth, alpha))
            parts = [accumulator.copy(its_limits) for its_limits in list(sharing.values())[1:]]
            accumulator.limits = next(iter(sharing.values()))
            for part in (accumulator, *parts):
                depth, alpha = part.limits[0]
                tree = trees[depth][number]
                if (id(tree), alpha) not in predictions:
                    predictions[id(tree), alpha] = predict(pruned(tree, alpha), rows)
                part.add(tree, predictions[id(tree), alpha])
                parted.append(part)
        accumulators = parted
    assert accumulators is not None
    return accumulators


@dataclass(frozen=True)
class TreesUnit:
    """Grow trees `start` to `stop` - 1 of one forest and hand them over."""

    fold: int
    forest_class: type
    parameters: Mapping[str, Any]
    seed: int
    start: int
    stop: int
    setting: int = 0

    @property
    def trees(self) -> int:
        """How many trees it grows."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"trees {self.start} to {self.stop - 1} of one forest"

    def run(self, data: SearchData) -> Iterator[Grown | Trees | Failed | Done]:
        """Yield the trees in batches."""
        try:
            rows = data.fold(self.fold).rows
            max_depth = self.parameters["max_depth"]
            limit = NO_LIMIT if max_depth is None else int(max_depth)
            seeds = tree_seeds(self.seed, self.stop)
            for start in range(self.start, self.stop, BATCH):
                began = time.perf_counter()
                stop = min(start + BATCH, self.stop)
                trees = grow(self.forest_class, self.parameters, seeds[start:stop], limit, rows)
                yield Grown(start, stop, len(trees), time.perf_counter() - began, 0.0)
                yield Trees(start, trees)
        except Exception as error:  # noqa: BLE001 - it is a result, see engine.Unit
            yield Failed(error)
        yield Done()


@dataclass(frozen=True)
class PlainUnit:
    """Fit and score one candidate on one fold, with scikit-learn's own function."""

    fold: int
    candidate: int
    parameters: Mapping[str, Any]
    trees: int = 0
    setting: int = 0

    def __str__(self) -> str:
        return f"fold {self.fold}, candidate {self.candidate}: {dict(self.parameters)}"

    def run(self, data: SearchData) -> Iterator[PlainFit | Failed | Done]:
        """Yield the scores; :class:`Failed` only if errors are to be raised."""
        train, test = data.splits[self.fold]
        try:
            yield PlainFit(
                _fit_and_score(
                    remembering(clone(data.estimator), data.transformers(self.fold)),
                    data.X,
                    data.y,
                    train=train,
                    test=test,
                    parameters=self.parameters,
                    fit_params=data.fit_params,
                    return_train_score=data.train_scores,
                    split_progress=(self.fold, len(data.splits)),
                    **data.plain,
                )
            )
        except Exception as error:  # noqa: BLE001 - it is a result, see engine.Unit
            yield Failed(error)
        yield Done()
