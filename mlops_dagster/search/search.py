"""`SharedGridSearchCV`: what ``GridSearchCV`` returns, for the trees that differ."""

from __future__ import annotations

import numbers
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.model_selection._validation import (
    _check_method_params,
    _insert_error_scores,
    _warn_or_raise_about_fit_failures,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable

from mlops_dagster.search.cache import open_cache
from mlops_dagster.search.data import NotForTreesError, SearchData
from mlops_dagster.search.engine import Engine, JoblibEngine, LocalEngine, Progress
from mlops_dagster.search.forest import grow_forest
from mlops_dagster.search.gather import Belongs, Gathering, StopSharingError, Unit, Work
from mlops_dagster.search.growing import FORESTS
from mlops_dagster.search.plan import SearchPlan, make_plan, measure
from mlops_dagster.search.schedule import cut, entry_key, schedule
from mlops_dagster.search.units import PlainUnit


class SharedGridSearchCV(GridSearchCV):  # type: ignore[misc]
    """Exhaustive search over parameter values that grows every tree once.

    It takes the place of ``sklearn.model_selection.GridSearchCV`` and returns the same, times apart. Candidates that
    differ in ``n_estimators``, in a ``max_depth`` that no tree reaches, or in parameters that come to the same, share
    trees: see :meth:`plan`. That holds for random forests and extra trees with an integer ``random_state``, alone or as
    the last step of a pipeline. Everything else is fitted as ``GridSearchCV`` would.

    Parameters
    ----------
    estimator, param_grid, scoring, refit, cv, error_score, return_train_score
        As in ``GridSearchCV``.
    n_jobs : int, optional
        How many threads, or processes for other estimators than forests, if there is no `engine`. None means 1, -1
        means one per core. The answer doesn't depend on it.
    verbose : int, default=0
        From 1: says what is to be done, and how far it is.
    pre_dispatch
        As in ``GridSearchCV``; on threads there is nothing to dispatch ahead.
    engine : Engine, optional
        Where trees grow. Default: threads of this process. A Spark engine is in ``mlops_dagster.stack.spark``.
    cache : path or SearchCache, optional
        A folder that keeps what was grown. A search that was killed goes on where it was, one with more values grows
        only the trees that are new, another scoring costs no tree. Plain fits aren't kept; where there are no others a
        warning says so.
    progress : callable, optional
        Is called with a :class:`Progress` now and then, from any thread, one call at a time.

    Attributes
    ----------
    plan_ : SearchPlan or None
        What was shared, and why. None where callbacks, or a subclass's own ``_run_search``, have to see every fit.
    work_ : dict
        What was done: ``candidates``, ``folds``, ``fits``, ``trees_asked``, ``trees_needed``, ``trees_grown``,
        ``trees_reused`` (from the cache), ``refit_trees_grown`` (0 where a pipeline was refitted plainly),
        ``plain_fits``, ``not_shared`` (candidates by reason), ``fell_back`` (units whose work had to be done plainly,
        by reason), ``units``, ``slots`` (how many units at the same time), ``seconds`` (of all slots),
        ``wall_seconds``.
    cv_results_, best_index_, best_params_, best_score_, best_estimator_, ...
        As in ``GridSearchCV``. ``mean_fit_time`` and ``mean_score_time`` divide what a tree took among the fits that
        use it, so that they add up to the time that was spent.

    Notes
    -----
    A scorer of one's own gets a stand-in for the forest, an instance of a subclass that predicts what the forest would.
    As soon as it asks for more (trees, importances, predictions on other rows, a copy) it gets plainly fitted forests.
    Only ``type(estimator) is RandomForestRegressor`` can tell the two apart.

    A forest with ``n_jobs`` above 1 adds up its trees in any order, so that scikit-learn's own last digit isn't
    repeatable; here it is what ``n_jobs=1`` gives. Plain fits aren't kept in the cache.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> X, y = make_regression(random_state=0)
    >>> grid = {"n_estimators": [10, 20, 30], "max_depth": [20, 40]}
    >>> search = SharedGridSearchCV(RandomForestRegressor(random_state=0), grid, cv=3).fit(X, y)
    >>> search.best_params_
    {'max_depth': 20, 'n_estimators': 30}
    >>> search.work_["trees_asked"], search.work_["trees_grown"]
    (360, 90)
    """

    cv_results_: dict[str, Any]
    n_splits_: int
    plan_: SearchPlan | None
    work_: dict[str, Any]

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **GridSearchCV._parameter_constraints,
        "engine": [object],
        "cache": [object],
        "progress": [callable, None],
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
        engine: Engine | None = None,
        cache: Any = None,
        progress: Callable[[Progress], object] | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.engine = engine
        self.cache = cache
        self.progress = progress

    def __getstate__(self) -> dict[str, Any]:
        # joblib's processes get a copy of the search where callbacks want to see each fit: it has nobody to tell.
        return {**super().__getstate__(), "progress": None}

    def plan(self, X: Any, y: Any = None, *, measure_seconds: bool = True, **params: Any) -> SearchPlan:
        """Return what ``fit`` with the same arguments would do, without doing it.

        Parameters
        ----------
        X, y, **params
            As in :meth:`fit`. A `cv` that is a generator is used up, as it would be by ``fit``.
        measure_seconds : bool, default=True
            Grow a few trees of the largest group to estimate time and memory.
        """
        read = _Read(self, X, y, params)
        if measure_seconds and read.plan.groups:
            read.plan.estimate = measure(read.plan, read.data, read.engine.slots)
        return read.plan

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]  # as in GridSearchCV: `estimator` isn't validated yet
    def fit(self, X: Any, y: Any = None, **params: Any) -> SharedGridSearchCV:
        """Search, see ``GridSearchCV.fit``.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Features.
        y : array-like of shape (rows,) or (rows, outputs), optional
            Target.
        **params : dict
            Given to ``fit`` of the estimator, to the scorer and to the splitter, as in ``GridSearchCV``.
        """
        began = time.perf_counter()
        if why := self._only_scikit_learn():
            return self._fit_plainly(X, y, params, why)

        read = _Read(self, X, y, params)
        if self.cache is not None and not (read.plan.groups or read.plan.shared_fits):
            why = "; ".join(read.plan.not_shared)
            warnings.warn(f"the cache keeps trees that are shared, and here are none: {why}.", stacklevel=3)
        self._checked_cv_orig, self.n_splits_ = read.cv, read.plan.folds
        self.plan_ = read.plan
        if self.verbose > 0:
            print(f"Fitting {read.plan}")
        gathering = self._gathering(read)
        reason, reused = "", 0
        try:
            reused = self._run_shared(read, gathering)
        except StopSharingError as stop:
            reason = str(stop)
        self._run_plain(read, gathering, reason)
        out = gathering.results()
        _warn_or_raise_about_fit_failures(out, self.error_score)
        if callable(self.scoring):
            _insert_error_scores(out, self.error_score)
        results = self._format_results(read.candidates, self.n_splits_, out)
        self._select(results, out[0]["test_scores"], read.refit_metric)
        refit_trees = self._refit(read) if self.refit else 0
        self.scorer_ = read.scorer._scorers if isinstance(read.scorer, _MultimetricScorer) else read.scorer
        self.cv_results_ = results
        work = gathering.work
        numbers_of_plan = read.plan.as_dict()
        self.work_ = {
            **{name: numbers_of_plan[name] for name in ("candidates", "folds", "fits", "trees_asked", "trees_needed")},
            "trees_grown": work.trees_grown,
            "trees_reused": reused,
            "refit_trees_grown": refit_trees,
            "shared_fits": work.shared_fits,
            "plain_fits": work.plain_fits,
            "units": work.units_done,
            "not_shared": numbers_of_plan["not_shared"],
            "fell_back": work.fell_back,
            "slots": read.engine.slots,
            "seconds": work.seconds,
            "wall_seconds": time.perf_counter() - began,
        }
        return self

    def _only_scikit_learn(self) -> str:
        """Return why ``GridSearchCV``'s own ``fit`` has to do it all; empty if it hasn't."""
        if _has_callbacks(self, self.estimator):
            return "callbacks see every fit"
        if type(self)._run_search is not GridSearchCV._run_search:
            return f"{type(self).__name__} has a _run_search of its own"
        return ""

    def _fit_plainly(self, X: Any, y: Any, params: Mapping[str, Any], why: str) -> SharedGridSearchCV:
        began = time.perf_counter()
        super().fit(X, y, **params)
        candidates = len(self.cv_results_["params"])
        fits = candidates * self.n_splits_
        times = ("mean_fit_time", "mean_score_time")
        self.plan_ = None
        self.work_ = {
            "candidates": candidates,
            "folds": self.n_splits_,
            "fits": fits,
            **dict.fromkeys(("trees_asked", "trees_needed", "trees_grown", "trees_reused", "refit_trees_grown"), 0),
            "shared_fits": 0,
            "plain_fits": fits,
            "units": fits,
            "not_shared": {why: candidates},
            "fell_back": {},
            "slots": effective_n_jobs(self.n_jobs),
            "seconds": float(sum(self.cv_results_[name].sum() for name in times)) * self.n_splits_,
            "wall_seconds": time.perf_counter() - began,
        }
        return self

    def _gathering(self, read: _Read) -> Gathering:
        return Gathering(
            read.data,
            read.candidates,
            scorer=read.scorer,
            score_params=read.score_params,
            error_score=self.error_score,
            cache=read.cache,
            work=Work(self._tell_progress()),
        )

    def _run_shared(self, read: _Read, gathering: Gathering) -> int:
        """Run the plan, and return how many trees were there already."""
        plan, data, engine, cache = read.plan, read.data, read.engine, read.cache
        digests = _digests(data, {group.fold for group in plan.groups}) if cache is not None else {}
        forest_class = type(data.forest)
        units: list[tuple[Any, Belongs]] = []
        for group in plan.groups:
            digest = digests.get(group.fold)
            key = "" if digest is None else entry_key(digest, forest_class, group.key, group.seed)
            wants = {candidate for ks in group.wanted.values() for ones in ks.values() for candidate in ones}
            name = f"candidate {min(wants)}" + (f" and {len(wants) - 1} alike" if len(wants) > 1 else "")
            scheduled = schedule(group, name, forest_class, None if digest is None else cache, key)
            for segment in scheduled.ready:
                gathering.take(group, segment)
            units += [(unit, (group, key)) for unit in scheduled.units]
        to_grow: int = sum(unit.trees for unit, _ in units)
        if engine.cuts_groups:
            units = [(block, units[number][1]) for number, block in cut([unit for unit, _ in units], engine.slots)]
        shared = gathering.serve(plan.shared_fits)
        to_grow += sum(unit.trees for unit, _ in shared)
        units += shared
        for fold in set(range(plan.folds)) - {unit.fold for unit, _ in units}:
            data.release(fold)
        # Largest first. Plain fits are the largest there are, or fail at once, which is best known early.
        units.sort(key=lambda pair: (-pair[0].trees * len(data.splits[pair[0].fold][0]), pair[0].fold))
        self._run_units(read, gathering, [*((unit, None) for unit in read.plain_units()), *units])
        return max(plan.trees_needed - plan.trees_plain - to_grow, 0)

    def _run_plain(self, read: _Read, gathering: Gathering, reason: str) -> None:
        """Fit plainly whatever has no scores yet."""
        left = [read.plain_unit(fold, candidate) for candidate, fold in gathering.unscored()]
        if left:
            if reason:
                gathering.work.fell_back[reason] = len(left)
            self._run_units(read, gathering, [(unit, None) for unit in left])

    @staticmethod
    def _run_units(read: _Read, gathering: Gathering, pairs: Sequence[tuple[Unit, Belongs]]) -> None:
        """Run units, each with what it belongs to, if anything."""
        units = [unit for unit, _ in pairs]
        gathering.work.expect(sum(unit.trees for unit in units), len(units))
        gathering.expect(units, [group for _, group in pairs])
        read.engine.run(units, read.data, gathering.receive)

    def _select(self, results: Mapping[str, Any], first_scores: Any, refit_metric: Any) -> None:
        """Set the best candidate, as ``GridSearchCV`` does."""
        self.multimetric_ = isinstance(first_scores, dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(first_scores)
            refit_metric = self.refit
        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(self.refit, refit_metric, results)
            if not callable(self.refit):
                self.best_score_ = results[f"mean_test_{refit_metric}"][self.best_index_]
            self.best_params_ = results["params"][self.best_index_]

    def _refit(self, read: _Read) -> int:
        """Fit the best candidate to all rows, on the engine too, and return how many trees that took."""
        self.best_estimator_ = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
        began = time.perf_counter()
        counted: list[int] = []
        if (
            type(self.best_estimator_) in FORESTS
            and set(read.fit_params) <= {"sample_weight"}
            and read.data.y is not None
        ):
            weight = read.fit_params.get("sample_weight")
            best, data = self.best_estimator_, read.data
            grow_forest(best, data.X, data.y, weight, engine=read.engine, cache=read.cache, grown=counted.append)
        elif read.data.y is not None:
            self.best_estimator_.fit(read.data.X, read.data.y, **read.fit_params)
        else:
            self.best_estimator_.fit(read.data.X, **read.fit_params)
        self.refit_time_ = time.perf_counter() - began
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_
        return sum(counted)

    def _tell_progress(self) -> Callable[[Progress], object] | None:
        if self.verbose <= 0:
            return self.progress
        said = (-1, False)

        def tell(progress: Progress) -> None:
            nonlocal said
            # Depth limits that bind add trees, so that the last tenth may come before the end.
            at = 10 * progress.done // max(progress.all, 1), progress.units_done == progress.units
            if at != said:
                said = at
                done = f"{progress.done:,} of {progress.all:,} {progress.unit}"
                print(f"[{progress.seconds:8.1f} s] {done}, {progress.units_done} of {progress.units} units")
            if self.progress is not None:
                self.progress(progress)

        return tell


class _Read:
    """What a search was given, checked and put in order, as ``GridSearchCV.fit`` does before it starts."""

    def __init__(self, search: SharedGridSearchCV, X: Any, y: Any, params: Mapping[str, Any]) -> None:
        self.scorer, self.refit_metric = search._get_scorers()
        X, y = indexable(X, y)
        checked = _check_method_params(X, params=params)
        routed = search._get_routed_params_for_fit(checked)
        self.fit_params, self.score_params = routed.estimator.fit, routed.scorer.score
        self.cache = open_cache(search.cache)  # once, so that it complains once
        self.engine: Engine
        if search.engine is not None:
            self.engine = search.engine
        elif ends_in_forest(search.estimator):
            self.engine = LocalEngine(search.n_jobs)
        else:  # few other estimators work without the interpreter lock
            self.engine = JoblibEngine(search.n_jobs, search.pre_dispatch)

        self.cv = check_cv(search.cv, y, classifier=is_classifier(search.estimator))
        folds = self.cv.get_n_splits(X, y, **routed.splitter.split)
        splits = list(self.cv.split(X, y, **routed.splitter.split))
        if len(splits) != folds:
            raise ValueError(
                f"cv.split and cv.get_n_splits return inconsistent results. Expected {folds} splits, got {len(splits)}"
            )
        self.candidates: list[dict[str, Any]] = list(ParameterGrid(search.param_grid))
        if not self.candidates or not splits:
            raise ValueError("No fits were performed. Was the CV iterator empty? Were there no candidates?")
        estimator = clone(search.estimator)
        _refuse_unknown(estimator, self.candidates)
        self.data = SearchData(
            estimator,
            X,
            y,
            [(_numbers(train), _numbers(test)) for train, test in splits],
            self.fit_params,
            train_scores=search.return_train_score,
            plain={
                "scorer": self.scorer,
                "score_params": self.score_params,
                "error_score": search.error_score,
                "verbose": search.verbose,
            },
        )
        in_pipeline = isinstance(estimator, Pipeline)
        self.plan = make_plan(
            self.candidates,
            self.data.forest if ends_in_forest(estimator) else None,
            [len(train) for train, _ in self.data.splits],
            estimator=estimator,
            prefix=f"{estimator.steps[-1][0]}__" if in_pipeline else "",
            n_features=None if in_pipeline else _n_features(X),
            unshareable=_why_nothing_is_shared(estimator, self.data),
        )

    def plain_unit(self, fold: int, candidate: int) -> PlainUnit:
        """Return the unit that fits one candidate plainly on one fold."""
        return PlainUnit(fold, candidate, self.candidates[candidate], self.plan.trees_of[candidate])

    def plain_units(self) -> list[PlainUnit]:
        """Return the units of candidates that share nothing."""
        return [
            self.plain_unit(fold, candidate)
            for candidates in self.plan.not_shared.values()
            for candidate in candidates
            for fold in range(self.plan.folds)
        ]


def _has_callbacks(*estimators: Any) -> bool:
    return any(getattr(estimator, "_skl_callbacks", None) for estimator in estimators)


def ends_in_forest(estimator: Any) -> bool:
    """Whether it is a forest that can share its trees, or a pipeline with one as its last step."""
    return type(estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator) in FORESTS


def _why_nothing_is_shared(estimator: Any, data: SearchData) -> str:
    """Return why no candidate can share a tree; empty if some may."""
    if not ends_in_forest(estimator):
        unknown = sorted(name for name in data.fit_params if not name.endswith("sample_weight"))
        return f"the fit parameters {unknown} may change what a fit does" if unknown else ""
    if data.y is None:
        return "there is no target"
    if others := set(data.fit_params) - {data.weight_name}:
        return f"the fit parameters {sorted(others)} aren't the forest's alone"
    if not isinstance(estimator, Pipeline):
        return ""
    if type(estimator) is not Pipeline or getattr(estimator, "transform_input", None) is not None:
        return "only a plain Pipeline is understood"
    for name, value in estimator[:-1].get_params().items():
        if name.endswith("random_state") and not isinstance(value, numbers.Integral):
            return f"{name} isn't an integer, so that every fit would transform the rows otherwise"
    return ""


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


def _n_features(X: Any) -> int | None:
    shape: tuple[int, ...] = getattr(X, "shape", ())
    return int(shape[-1]) if len(shape) == 2 else None


def _digests(data: SearchData, folds: set[int]) -> dict[int, str]:
    """Return a digest of each fold's rows; of those that a forest refuses, none."""
    digests = {}
    for fold in sorted(folds):
        try:
            digests[fold] = data.fold(fold).rows.digest()
        except NotForTreesError:
            continue
    return digests
