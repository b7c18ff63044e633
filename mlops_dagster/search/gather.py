"""Gathering what units yield into the scores and times of every fit, as scikit-learn's own search lists them.

Time: what a batch of trees took is divided evenly among the fits that use these trees; what a score took belongs to
the fits that it is the score of. So all times add up to what this run spent; sums from the cache cost it nothing.
"""

from __future__ import annotations

import copy
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection._validation import _check_method_params, _score

from mlops_dagster.search.cache import MemoryCache, SearchCache
from mlops_dagster.search.data import SearchData
from mlops_dagster.search.engine import Progress
from mlops_dagster.search.growing import Limit
from mlops_dagster.search.plan import Group
from mlops_dagster.search.schedule import add, save_segment
from mlops_dagster.search.scoring import (
    NeedsTheForest,
    asked_in_vain,
    sees_predictions_only,
    stand_in,
    with_sums,
)
from mlops_dagster.search.serving import Served, ServedCache, ServeUnit, SharedFit
from mlops_dagster.search.units import (
    Done,
    Failed,
    Grown,
    GrowUnit,
    PlainFit,
    PlainUnit,
    Segment,
)

Unit = GrowUnit | ServeUnit | PlainUnit
Belongs = tuple[Group, str] | SharedFit | None


class StopSharingError(Exception):
    """The scorer needs the forests themselves, so there is no point in growing without keeping them."""


class Work:
    """What was done, counted as it is done."""

    def __init__(self, tell: Callable[[Progress], object] | None) -> None:
        self.trees_grown = 0
        self.plain_fits = 0
        self.shared_fits = 0
        self.units_done = 0
        self.seconds = 0.0
        self.fell_back: dict[str, int] = {}
        self.counted = "trees"
        self._needed = self._units = 0
        self._tell = tell
        self._began = time.perf_counter()

    def expect(self, trees: int, units: int) -> None:
        """Expect so much more work; of trees, as many as there are if no depth limit binds."""
        self._needed += trees
        self._units += units

    def tell(self) -> None:
        """Say how far it is."""
        if self._tell is not None:
            seconds = time.perf_counter() - self._began
            self._tell(Progress(self.trees_grown, self._needed, self.units_done, self._units, seconds, self.counted))


class Gathering:
    """Receives what units yield, from any thread.

    Parameters
    ----------
    cache : SearchCache, optional
        Gets every sum that units yield, and the scores of every candidate that a shared fit serves.
    """

    def __init__(
        self,
        data: SearchData,
        candidates: Sequence[Mapping[str, Any]],
        *,
        cache: SearchCache | None,
        work: Work,
    ) -> None:
        self.data, self._candidates = data, candidates
        self._scorer, self._score_params, self._error_score = (
            data.plain[name] for name in ("scorer", "score_params", "error_score")
        )
        self._predictions_only = sees_predictions_only(self._scorer)
        self._cache = cache
        self.work = work
        self._folds = len(data.splits)
        self._lock = threading.RLock()
        self.scores: list[dict[str, Any] | None] = [None] * (len(candidates) * self._folds)
        self._fit_seconds = np.zeros((len(candidates), self._folds))
        self._score_seconds = np.zeros((len(candidates), self._folds))
        self._units: Sequence[Unit] = []
        self._groups: dict[int, _Gathered] = {}
        self._shared: dict[int, SharedFit] = {}
        self._left: dict[int | tuple[int, int], int] = {}  # units, by fold, and by fold and setting

    @cached_property
    def served_cache(self) -> ServedCache | None:
        """What the cache keeps of shared fits, if there is one."""
        if self._cache is None or isinstance(self._cache, MemoryCache):  # a later round asks for other fits
            return None
        served_cache = ServedCache(self._cache, self.data, self._candidates)
        if served_cache.refusal:
            warnings.warn(served_cache.refusal, stacklevel=2)
        return served_cache

    def serve(self, shared_fits: Sequence[SharedFit]) -> list[tuple[ServeUnit, SharedFit]]:
        """Take what the cache has of shared fits, and return the units for the rest."""
        units = []
        for shared in shared_fits:
            left = dict(shared.sizes)
            for served in self.served_cache.read(shared) if self.served_cache is not None else ():
                self._take_fit(served.candidate, shared.fold, served.scores)
                del left[served.candidate]
            if left:
                parameters = {candidate: self._candidates[candidate] for candidate in left}
                units.append((ServeUnit(shared.fold, left, parameters, shared.setting), shared))
        return units

    def expect(self, units: Sequence[Unit], groups: Sequence[Belongs]) -> None:
        """Expect the results of units, each of which belongs to a group (with its cache key), a shared fit, or none."""
        gathered: dict[int, _Gathered] = {}
        self._units, self._groups, self._shared = units, {}, {}
        for number, (unit, belongs) in enumerate(zip(units, groups, strict=True)):
            for what in (unit.fold, (unit.fold, unit.setting)):
                self._left[what] = self._left.get(what, 0) + 1
            if isinstance(belongs, SharedFit):
                self._shared[number] = belongs
            elif belongs is not None and isinstance(unit, GrowUnit):
                group, key = belongs
                if id(group) not in gathered:
                    gathered[id(group)] = _Gathered(group, key)
                self._groups[number] = gathered[id(group)]
                if not unit.begin and unit.start > 0:
                    self._groups[number].joints.add(unit.start)

    def take(self, group: Group, total: Segment) -> None:
        """Take a sum from tree 0 and score every candidate that wants it."""
        candidates = [
            candidate for limit in total.limits for candidate in group.wanted.get(limit, {}).get(total.stop, ())
        ]
        if not candidates:
            return
        # A callable may look at the parameters, so it is asked for every candidate.
        alike = [candidates] if self._predictions_only else [[candidate] for candidate in candidates]
        for its_candidates in alike:
            began = time.perf_counter()
            scores = self._score(group, its_candidates[0], total)
            seconds = time.perf_counter() - began
            with self._lock:
                self.work.seconds += seconds
                self._score_seconds[its_candidates, group.fold] += seconds / len(its_candidates)
                if scores is None:
                    continue
                for candidate in its_candidates:
                    self.scores[candidate * self._folds + group.fold] = {
                        name: dict(value) if isinstance(value, dict) else value for name, value in scores.items()
                    }

    def receive(self, number: int, result: Any) -> None:
        """Take one result of a unit."""
        unit = self._units[number]
        if isinstance(result, Segment):
            gathered = self._groups[number]
            if self._cache is not None:
                save_segment(self._cache, gathered.key, result)
            with self._lock:
                totals = gathered.join(result)
            for total in totals:
                self.take(gathered.group, total)
        elif isinstance(result, Grown):
            with self._lock:
                self._attribute(self._groups[number], result)
                self.work.trees_grown += result.trees
                self.work.tell()
        elif isinstance(result, PlainFit):
            assert isinstance(unit, PlainUnit)
            with self._lock:
                self._take_fit(unit.candidate, unit.fold, result.scores)
                self.work.plain_fits += 1
                if result.scores["fit_error"] is None:
                    self.work.trees_grown += unit.trees
        elif isinstance(result, Served):
            if self.served_cache is not None:
                self.served_cache.write(self._shared[number], result)
            with self._lock:
                self._take_fit(result.candidate, unit.fold, result.scores)
                self.work.shared_fits += result.grown > 0
                self.work.trees_grown += result.grown
                self.work.tell()
        elif isinstance(result, Failed):
            self._failed(number, result.error)
        elif isinstance(result, Done):
            self._done(unit)

    def unscored(self) -> list[tuple[int, int]]:
        """Return the candidates and folds that have no scores yet."""
        return [divmod(cell, self._folds) for cell, scores in enumerate(self.scores) if scores is None]

    def results(self) -> list[dict[str, Any]]:
        """Return what scikit-learn's own fit-and-score would have returned for every candidate on every fold."""
        results = []
        for cell, scores in enumerate(self.scores):
            candidate, fold = divmod(cell, self._folds)
            assert scores is not None
            results.append(
                {
                    **scores,
                    "fit_time": self._fit_seconds[candidate, fold],
                    "score_time": self._score_seconds[candidate, fold],
                }
            )
        return results

    def _attribute(self, gathered: _Gathered, grown: Grown) -> None:
        fold = gathered.group.fold
        users = gathered.users[gathered.user_trees >= grown.stop]
        if len(users) == 0:  # nobody's, only the way to the next block
            users = gathered.users
        self._fit_seconds[users, fold] += grown.fit_seconds / len(users)
        self._score_seconds[users, fold] += grown.predict_seconds / len(users)
        self.work.seconds += grown.fit_seconds + grown.predict_seconds

    def _score(self, group: Group, candidate: int, total: Segment) -> dict[str, Any] | None:
        """Score one candidate; None if a plain fit shall say what is wrong with it."""
        fold = self.data.fold(group.fold, group.setting)
        # X and y by what they are scored as.
        rows = {"test_scores": (fold.X_test, fold.y_test)}
        if self.data.train_scores:
            rows["train_scores"] = (fold.X_train, fold.y_train)
        if not self._predictions_only:
            # A callable may change what it gets, and GridSearchCV gives each candidate rows of its own.
            rows = copy.deepcopy(rows)
        known = [X for X, _ in rows.values()]
        if self._predictions_only and fold.stand_in is not None:
            estimator = with_sums(fold.stand_in, total.sums, total.stop, known)
        else:
            estimator = stand_in(self.data, fold, self._candidates[candidate], total.sums, total.stop, known)
            fold.stand_in = estimator
        scores = {"fit_error": None, "n_test_samples": len(fold.test)}
        try:
            for kind, numbers in (("test_scores", fold.test), ("train_scores", fold.train)):
                if kind in rows:
                    scores[kind] = self._ask(estimator, *rows[kind], numbers)
        except NeedsTheForest:
            pass
        except Exception as error:
            if self._predictions_only:
                raise
            if not asked_in_vain(estimator):
                reason = f"the scorer raised {type(error).__name__}: {error}".splitlines()[0]
                self._fall_back(reason, group.fold, candidate)
                return None
        if needed := asked_in_vain(estimator):
            raise StopSharingError(f"the scorer needs more than predictions: {needed}")
        return scores

    def _ask(self, estimator: Any, X: Any, y: Any, rows: Any) -> Any:
        params = _check_method_params(self.data.X, params=self._score_params, indices=rows)
        if self._predictions_only:
            return _score(estimator, X, y, self._scorer, params, self._error_score)
        # What a callable raises may be due to the stand-in, so it isn't the candidate's score.
        scorer = self._scorer
        if isinstance(scorer, _MultimetricScorer):
            scorer = _MultimetricScorer(scorers=scorer._scorers, raise_exc=True)
        return _score(estimator, X, y, scorer, params, "raise")

    def _take_fit(self, candidate: int, fold: int, scores: Mapping[str, Any]) -> None:
        scores = dict(scores)
        fit_seconds, score_seconds = scores.pop("fit_time"), scores.pop("score_time")
        self.scores[candidate * self._folds + fold] = scores
        self._fit_seconds[candidate, fold] += fit_seconds
        self._score_seconds[candidate, fold] += score_seconds
        self.work.seconds += fit_seconds + score_seconds

    def _failed(self, number: int, error: Exception) -> None:
        unit = self._units[number]
        if isinstance(unit, PlainUnit):
            raise _named(error, unit)
        if isinstance(unit, ServeUnit):
            candidate = unit.candidate
        else:
            wanted = self._groups[number].group.wanted
            candidate = min(one for numbers in wanted.values() for ones in numbers.values() for one in ones)
        self._fall_back(f"{type(error).__name__}: {error}".splitlines()[0], unit.fold, candidate)

    def _fall_back(self, reason: str, fold: int, candidate: int) -> None:
        """Note that something is left to plain fits."""
        with self._lock:
            self.work.fell_back[reason] = self.work.fell_back.get(reason, 0) + 1
        if self._error_score == "raise":
            # Whoever wants errors raised wants them now: scikit-learn's own fit shall say it.
            plain = PlainUnit(fold, candidate, self._candidates[candidate])
            for result in plain.run(self.data):
                if isinstance(result, Failed):
                    raise _named(result.error, plain)

    def _done(self, unit: Unit) -> None:
        with self._lock:
            self.work.units_done += 1
            self.work.tell()
            for what, of in ((unit.fold, (unit.fold,)), ((unit.fold, unit.setting), (unit.fold, unit.setting))):
                self._left[what] -= 1
                if self._left[what] == 0:
                    self.data.release(*of)


class _Gathered:
    """What came of one group so far."""

    def __init__(self, group: Group, key: str) -> None:
        self.group, self.key = group, key
        pairs = [
            (candidate, number)
            for numbers in group.wanted.values()
            for number, candidates in numbers.items()
            for candidate in candidates
        ]
        self.users = np.array([candidate for candidate, _ in pairs])
        self.user_trees = np.array([number for _, number in pairs])
        self.joints: set[int] = set()
        self._totals: dict[tuple[Limit, int], Segment] = {}
        self._waiting: list[Segment] = []

    def join(self, segment: Segment) -> list[Segment]:
        """Return the sums from tree 0 that this segment completes."""
        if segment.start == 0:
            completed = [segment]
        else:
            self._waiting.append(segment)
            completed = []
        found = list(completed)
        while True:
            for total in completed:
                if total.stop in self.joints:
                    self._totals |= {(limit, total.stop): total for limit in total.limits}
            completed = self._complete_waiting()
            if not completed:
                return found
            found += completed

    def _complete_waiting(self) -> list[Segment]:
        completed, still_waiting = [], []
        for segment in self._waiting:
            # Limits that share this segment may have parted before it.
            by_total: dict[int, tuple[Segment, list[Limit]]] = {}
            missing = []
            for limit in segment.limits:
                before = self._totals.get((limit, segment.start))
                if before is None:
                    missing.append(limit)
                else:
                    by_total.setdefault(id(before), (before, []))[1].append(limit)
            for before, limits in by_total.values():
                total = add(before, segment)
                completed.append(Segment(0, total.stop, tuple(limits), total.limit, total.deepest, total.sums))
            if missing:
                still_waiting.append(
                    Segment(segment.start, segment.stop, tuple(missing), segment.limit, segment.deepest, segment.sums)
                )
        self._waiting = still_waiting
        return completed


def _named(error: Exception, unit: PlainUnit) -> Exception:
    """Add to an error which candidate it is about."""
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"Raised by {unit}.")
    return error
