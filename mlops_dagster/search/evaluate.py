"""What scikit-learn wants fitted and scored is planned, shared and scored here, in place of its ``Parallel``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.parallel import Parallel

from mlops_dagster.search.cache import MemoryCache, open_cache
from mlops_dagster.search.choosing import ThreadsOrProcesses
from mlops_dagster.search.data import NotForTreesError, SearchData
from mlops_dagster.search.engine import Engine, JoblibEngine, Progress
from mlops_dagster.search.forest import grow_forest
from mlops_dagster.search.gather import Belongs, Gathering, StopSharingError, Unit, Work
from mlops_dagster.search.growing import FORESTS
from mlops_dagster.search.plan import SearchPlan, make_plan, measure
from mlops_dagster.search.schedule import cut, entry_key, schedule

_OF_ONE_FIT = {"train", "test", "parameters", "split_progress", "candidate_progress", "caller", "callback_ctx"}


class Planned(BaseException):
    """The plan is made, and nothing else was asked for. Not an ``Exception``, so that nothing swallows it."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan = plan


class Evaluation:
    """Takes the place of ``Parallel`` in one call of a search of scikit-learn's.

    Parameters
    ----------
    callbacks : bool
        Whether callbacks want to see every fit, so that none is shared.
    plan_only, measure_seconds : bool
        Raise :class:`Planned` in place of the first fit; estimate its time as well.
    """

    plan: SearchPlan

    def __init__(
        self,
        *,
        engine: Engine | None,
        cache: Any,
        progress: Callable[[Progress], object] | None,
        callbacks: bool = False,
        plan_only: bool = False,
        measure_seconds: bool = False,
    ) -> None:
        self._began = time.perf_counter()
        self._given_engine, self._cache = engine, open_cache(cache)  # once, so that it complains once
        self._progress, self._said = progress, (-1, False)
        self._callbacks = callbacks
        self._plan_only, self._measure = plan_only, measure_seconds
        self._how: dict[str, Any] = {}
        self._base: Any = None
        self._verbose = 0
        self._evaluating = False
        self._work = Work(self._tell)
        self._reused = self._refit_trees = self._slots = 0

    # -------------------------------------------------------------------------------- what scikit-learn calls

    def parallel(self, **how: Any) -> Evaluation:
        """Take the place of ``Parallel(n_jobs=..., ...)``."""
        self._how = how
        return self

    def __enter__(self) -> Evaluation:
        self._evaluating = not self._callbacks
        return self

    def __exit__(self, *raised: object) -> None:
        self._evaluating = False

    def clone(self, estimator: Any, *, safe: bool = True) -> Any:
        """Take the place of ``clone``: candidates are cloned where they are fitted, the best grows on the engine."""
        if self._base is not None and estimator is self._base and self._evaluating:
            return estimator
        cloned = clone(estimator, safe=safe)
        if self._base is None:
            self._base = cloned
        elif estimator is self._base and type(cloned) in FORESTS and not self._callbacks:
            cloned.fit = partial(self._refit, cloned)
        return cloned

    def __call__(self, calls: Iterable[tuple[Any, tuple[Any, ...], Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Return what ``_fit_and_score`` would return for each of its calls."""
        calls = list(calls)
        if not calls:
            return []  # scikit-learn says what is wrong
        estimator, X, y = calls[0][1]
        common = {name: value for name, value in calls[0][2].items() if name not in _OF_ONE_FIT}
        self._verbose = common["verbose"]
        candidates, splits, cells = _in_order([its for _, _, its in calls])
        _refuse_unknown(estimator, candidates)
        data = SearchData(
            clone(estimator),
            X,
            y,
            splits,
            common.pop("fit_params"),
            train_scores=common.pop("return_train_score"),
            plain={**common, "return_times": True, "return_n_test_samples": True},
        )
        plan = make_plan(candidates, data, unshareable="callbacks see every fit" if self._callbacks else "")
        engine = self._engine(plan)
        if self._plan_only:
            if self._measure and plan.groups:
                plan.estimate = measure(plan, data, engine.slots)
            raise Planned(plan)
        self.plan = self.plan.then(plan) if self.planned else plan
        self._work.counted = plan.counted
        if self._verbose > 0:
            print(plan)
        if self._callbacks:
            self._work.plain_fits += len(calls)
            return list(Parallel(**self._how)(calls))
        if (
            self._cache is not None
            and not (plan.groups or plan.shared_fits)
            and not isinstance(self._cache, MemoryCache)
        ):
            why = "; ".join(plan.not_shared)
            warnings.warn(f"the cache keeps trees that are shared, and here are none: {why}.", stacklevel=2)
        gathering = Gathering(data, candidates, cache=self._cache, work=self._work)
        reason = ""
        try:
            self._run_shared(plan, engine, gathering)
        except StopSharingError as stop:
            reason = str(stop)
        left = [plan.plain_unit(fold, candidate) for candidate, fold in gathering.unscored()]
        if left:
            if reason:
                self._work.fell_back[reason] = len(left)
            _run_units(engine, gathering, [(unit, None) for unit in left])
        results = gathering.results()
        return [results[candidate * len(splits) + fold] for candidate, fold in cells]

    # ------------------------------------------------------------------------------------------------- the work

    @property
    def planned(self) -> bool:
        """Whether there was anything to do."""
        return hasattr(self, "plan")

    def work(self) -> dict[str, Any]:
        """Return what was done, see ``work_``."""
        work, plan = self._work, self.plan.as_dict()
        return {
            **{name: plan[name] for name in ("candidates", "folds", "fits", "trees_asked", "trees_needed")},
            "trees_grown": work.trees_grown,
            "trees_reused": self._reused,
            "refit_trees_grown": self._refit_trees,
            "shared_fits": work.shared_fits,
            "plain_fits": work.plain_fits,
            "units": work.units_done,
            "not_shared": plan["not_shared"],
            "fell_back": work.fell_back,
            "slots": self._engine(self.plan).slots,
            "seconds": work.seconds,
            "wall_seconds": time.perf_counter() - self._began,
        }

    def _engine(self, plan: SearchPlan) -> Engine:
        if self._given_engine is not None:
            return self._given_engine
        # Few estimators work without the interpreter lock; trees do, if they are large.
        engine = ThreadsOrProcesses if plan.groups else JoblibEngine
        return engine(self._how.get("n_jobs"), self._how.get("pre_dispatch", "2*n_jobs"))

    def _run_shared(self, plan: SearchPlan, engine: Engine, gathering: Gathering) -> None:
        """Run the plan, after what the cache has of it already."""
        data, cache = gathering.data, self._cache
        digests = _digests(data, {(group.fold, group.setting) for group in plan.groups}) if cache is not None else {}
        units: list[tuple[Any, Belongs]] = []
        for group in plan.groups:
            digest = digests.get((group.fold, group.setting))
            key = "" if digest is None else entry_key(digest, group.forest_class, group.key, group.seed)
            wants = {candidate for ks in group.wanted.values() for ones in ks.values() for candidate in ones}
            name = f"candidate {min(wants)}" + (f" and {len(wants) - 1} alike" if len(wants) > 1 else "")
            scheduled = schedule(group, name, None if digest is None else cache, key)
            for segment in scheduled.ready:
                gathering.take(group, segment)
            units += [(unit, (group, key)) for unit in scheduled.units]
        to_grow: int = sum(unit.trees for unit, _ in units)
        if engine.cuts_groups:
            units = [(block, units[number][1]) for number, block in cut([unit for unit, _ in units], engine.slots)]
        shared = gathering.serve(plan.shared_fits)
        self._reused += max(plan.trees_needed - plan.trees_plain - to_grow - sum(unit.trees for unit, _ in shared), 0)
        units += shared
        for fold in set(range(plan.folds)) - {unit.fold for unit, _ in units}:
            data.release(fold)
        # Largest first. Plain fits are the largest there are, or fail at once, which is best known early.
        units.sort(key=lambda pair: (-pair[0].trees * len(data.splits[pair[0].fold][0]), pair[0].fold, pair[0].setting))
        plain = [
            plan.plain_unit(fold, candidate)
            for fold in range(plan.folds)
            for candidates in plan.not_shared.values()
            for candidate in candidates
        ]
        _run_units(engine, gathering, [*((unit, None) for unit in plain), *units])

    def _refit(self, forest: Any, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit the best candidate, and count its trees."""
        del forest.fit
        if y is None or not set(params) <= {"sample_weight"}:
            return forest.fit(X, y, **params)
        counted: list[int] = []
        engine, weight = self._engine(self.plan), params.get("sample_weight")
        grow_forest(forest, X, y, weight, engine=engine, cache=self._cache, grown=counted.append)
        self._refit_trees += sum(counted)
        return forest

    def _tell(self, progress: Progress) -> None:
        # Depth limits that bind add trees, so that the last tenth may come before the end.
        at = 10 * progress.done // max(progress.all, 1), progress.units_done == progress.units
        if self._verbose > 0 and at != self._said:
            self._said = at
            done = f"{progress.done:,} of {progress.all:,} {progress.unit}"
            print(f"[{progress.seconds:8.1f} s] {done}, {progress.units_done} of {progress.units} units")
        if self._progress is not None:
            self._progress(progress)


def _in_order(
    fits: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[tuple[Any, Any]], list[tuple[int, int]]]:
    """Return the candidates, the splits, and for each fit the numbers of both.

    A search goes through all splits of a candidate, ``validation_curve`` through all candidates of a split.
    """
    candidates: list[Mapping[str, Any]] = []
    splits: list[tuple[Any, Any]] = []
    fold_of: dict[tuple[int, int], int] = {}
    so_far: list[int] = []
    cells = []
    for fit in fits:
        split = fit["train"], fit["test"]
        fold = fold_of.setdefault((id(split[0]), id(split[1])), len(splits))
        if fold == len(splits):
            splits.append((_numbers(split[0]), _numbers(split[1])))
            so_far.append(0)
        if so_far[fold] == len(candidates):
            candidates.append(fit["parameters"])
        cells.append((so_far[fold], fold))
        so_far[fold] += 1
    return candidates, splits, cells


def _run_units(engine: Engine, gathering: Gathering, pairs: Sequence[tuple[Unit, Belongs]]) -> None:
    """Run units, each with what it belongs to, if anything."""
    units = [unit for unit, _ in pairs]
    gathering.work.expect(sum(unit.trees for unit in units), len(units))
    gathering.expect(units, [group for _, group in pairs])
    engine.run(units, gathering.data, gathering.receive)


def _refuse_unknown(estimator: Any, candidates: Sequence[Mapping[str, Any]]) -> None:
    """Let scikit-learn refuse parameters that the estimator doesn't have, before any work."""
    seen: set[tuple[str, ...]] = set()
    for candidate in candidates:
        names = tuple(candidate)
        if names not in seen:
            seen.add(names)
            clone(estimator).set_params(**clone(candidate, safe=False))


def _numbers(rows: Any) -> Any:
    """Return row numbers; splitters may also give a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def _digests(data: SearchData, folds: set[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Return a digest of each fold's rows, for each setting; of those that a forest refuses, none."""
    digests = {}
    for fold in sorted(folds):
        try:
            digests[fold] = data.fold(*fold).rows.digest()
        except NotForTreesError:
            continue
    return digests
