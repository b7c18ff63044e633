"""`SharedGridSearchCV` and its kin: what scikit-learn's searches return, for the work that differs."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from sklearn.base import _fit_context
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - scikit-learn asks for it
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    validation_curve,
)
from sklearn.model_selection._search import BaseSearchCV

from mlops_dagster.search.cache import MemoryCache
from mlops_dagster.search.evaluate import Evaluation, Planned
from mlops_dagster.search.plan import SearchPlan
from mlops_dagster.search.rewire import rewired


class _Shared(BaseSearchCV):  # type: ignore[misc]
    """Mixed into scikit-learn's searches: their own ``fit`` runs, and what it wants fitted is shared."""

    plan_: SearchPlan
    work_: dict[str, Any]

    def __getstate__(self) -> dict[str, Any]:
        # joblib's processes get a copy of the search where callbacks want to see each fit: it has nobody to tell.
        return {**super().__getstate__(), "progress": None}

    def plan(self, X: Any, y: Any = None, *, measure_seconds: bool = True, **params: Any) -> SearchPlan:
        """Return what ``fit`` with the same arguments would do, without doing it; of several rounds, the first.

        Parameters
        ----------
        X, y, **params
            As in :meth:`fit`. A `cv` that is a generator is used up, as it would be by ``fit``.
        measure_seconds : bool, default=True
            Grow a few trees of the largest group to estimate time and memory.
        """
        planned = copy.copy(self)
        planned.verbose = 0
        planned._evaluation = planned._evaluate(plan_only=True, measure_seconds=measure_seconds)
        try:
            planned.fit(X, y, **params)
        except Planned as stop:
            return stop.plan
        raise AssertionError("scikit-learn fitted nothing")

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Search, as scikit-learn's class does.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Features.
        y : array-like of shape (rows,) or (rows, outputs), optional
            Target.
        **params : dict
            Given to ``fit`` of the estimator, to the scorer and to the splitter, as scikit-learn does.
        """
        evaluation = self.__dict__.pop("_evaluation", None) or self._evaluate()
        fit = rewired(BaseSearchCV.fit, Parallel=evaluation.parallel, clone=evaluation.clone)
        try:
            _fit_context(prefer_skip_nested_validation=False)(fit)(self, X, y, **params)
        finally:
            if evaluation.planned:
                self.plan_, self.work_ = evaluation.plan, evaluation.work()
        return self

    def _evaluate(self, **how: bool) -> Evaluation:
        callbacks = any(getattr(one, "_skl_callbacks", None) for one in (self, self.estimator))
        # Halving by a number of trees goes on with those that it has grown.
        rounds = getattr(self, "resource", "n_samples") != "n_samples" and self.cache is None
        cache = MemoryCache() if rounds else self.cache
        return Evaluation(engine=self.engine, cache=cache, progress=self.progress, callbacks=callbacks, **how)


def shared_validation_curve(
    estimator: Any, X: Any, y: Any, *, engine: Any = None, cache: Any = None, progress: Any = None, **arguments: Any
) -> tuple[Any, Any]:
    """Return what ``sklearn.model_selection.validation_curve`` returns for the same arguments, in less time.

    Parameters
    ----------
    estimator, X, y, **arguments
        As ``validation_curve`` takes them.
    engine, cache, progress : optional
        As in :class:`SharedGridSearchCV`.

    Returns
    -------
    train_scores, test_scores : array of shape (values, folds)

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> X, y = make_regression(random_state=0)
    >>> forest = RandomForestRegressor(random_state=0)
    >>> how = {"param_name": "n_estimators", "param_range": [10, 20, 30], "cv": 3}
    >>> _, test_scores = shared_validation_curve(forest, X, y, **how)  # 90 trees in place of 180
    >>> test_scores.shape
    (3, 3)
    """
    callbacks = bool(getattr(estimator, "_skl_callbacks", None))
    evaluation = Evaluation(engine=engine, cache=cache, progress=progress, callbacks=callbacks)
    curve = rewired(validation_curve, Parallel=evaluation.parallel)
    scores: tuple[Any, Any] = curve(estimator, X, y, **arguments)
    return scores


def _with_engine(search: Any) -> Any:
    """Let a search take what says where and how work is shared, beside what scikit-learn's takes."""
    theirs: Any = search.__mro__[1].__init__
    kinds = {"engine": [object], "cache": [object], "progress": [callable, None]}

    def __init__(  # noqa: N807 - it becomes one
        self: Any, *args: Any, engine: Any = None, cache: Any = None, progress: Any = None, **others: Any
    ) -> None:
        theirs(self, *args, **others)
        self.engine, self.cache, self.progress = engine, cache, progress

    # scikit-learn reads an estimator's parameters off its signature.
    signature = inspect.signature(theirs)
    ours = (inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in kinds)
    __init__.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *ours])  # type: ignore[attr-defined]
    search.__init__ = __init__
    search._parameter_constraints = {**search._parameter_constraints, **kinds}
    return search


@_with_engine
class SharedGridSearchCV(GridSearchCV, _Shared):  # type: ignore[misc]
    """Exhaustive search over parameter values that does once what its candidates have in common.

    It takes the place of ``sklearn.model_selection.GridSearchCV`` and returns the same, times apart. Candidates share
    the trees of forests, the stages of boosting and what else a family of estimators knows (`families`), and each
    setting of the steps in front is fitted once per fold: see :meth:`plan`. Everything else is fitted as
    ``GridSearchCV`` would.

    Parameters
    ----------
    estimator, param_grid, scoring, refit, cv, error_score, return_train_score, pre_dispatch
        As in ``GridSearchCV``.
    n_jobs : int, optional
        How many threads or processes, if there is no `engine`: processes where no forest shares its trees, or where
        these are so small and so many that threads would wait for each other. None means 1, -1 means one per core. The
        answer doesn't depend on it.
    verbose : int, default=0
        From 1: says what is to be done, and how far it is.
    engine : Engine, optional
        Where the work is done. Default: here. ``mlops_dagster.stack`` has one for Spark (`spark`) and one for Ray
        (`ray_engine`).
    cache : path or SearchCache, optional
        A folder that keeps what was done. A search that was killed goes on where it was, one with more values does only
        what is new. Plain fits aren't kept; where there are no others a warning says so.
    progress : callable, optional
        Is called with a :class:`Progress` now and then, from any thread, one call at a time.

    Attributes
    ----------
    plan_ : SearchPlan
        What was shared, and why not where it wasn't; of all rounds together.
    work_ : dict
        What was done: ``candidates``, ``folds``, ``fits``, ``trees_asked``, ``trees_needed``, ``trees_grown``,
        ``trees_reused`` (from the cache or an earlier round), ``refit_trees_grown`` (0 where it was refitted plainly),
        ``shared_fits``, ``plain_fits``, ``not_shared`` (candidates by reason), ``fell_back`` (units whose work had to
        be done plainly, by reason), ``units``, ``slots`` (how many units at the same time), ``seconds`` (of all slots),
        ``wall_seconds``. Trees are stages, or what else a family counts.
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


@_with_engine
class SharedRandomizedSearchCV(RandomizedSearchCV, _Shared):  # type: ignore[misc]
    """Randomized search over parameter values that shares what its candidates have in common.

    It takes the place of ``sklearn.model_selection.RandomizedSearchCV``; all else is as in :class:`SharedGridSearchCV`.

    Examples
    --------
    >>> from scipy.stats import randint
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> X, y = make_regression(random_state=0)
    >>> values = {"n_estimators": randint(10, 31), "max_depth": [20, 40]}
    >>> search = SharedRandomizedSearchCV(RandomForestRegressor(random_state=0), values, cv=3, random_state=0).fit(X, y)
    >>> search.work_["trees_asked"], search.work_["trees_grown"]
    (555, 84)
    """


@_with_engine
class SharedHalvingGridSearchCV(HalvingGridSearchCV, _Shared):  # type: ignore[misc]
    """Search by successive halving that shares what its candidates have in common.

    It takes the place of ``sklearn.model_selection.HalvingGridSearchCV``; all else is as in
    :class:`SharedGridSearchCV`. With ``resource="n_estimators"`` a forest that comes through a round goes on with the
    trees that it has. With ``resource="n_samples"`` each round has other rows, so that only candidates of the same
    round share.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> X, y = make_regression(random_state=0)
    >>> how = {"resource": "n_estimators", "min_resources": 10, "max_resources": 40, "factor": 2, "cv": 3}
    >>> values = {"min_samples_leaf": [1, 3, 5, 7]}
    >>> search = SharedHalvingGridSearchCV(RandomForestRegressor(random_state=0), values, **how).fit(X, y)
    >>> search.work_["trees_asked"], search.work_["trees_grown"]  # 4 x 10 + 2 x 20 + 40; 4 x 10 + 2 x 10 + 20; 3 folds
    (360, 240)
    """


@_with_engine
class SharedHalvingRandomSearchCV(HalvingRandomSearchCV, _Shared):  # type: ignore[misc]
    """Search by successive halving over random candidates, see :class:`SharedHalvingGridSearchCV`.

    It takes the place of ``sklearn.model_selection.HalvingRandomSearchCV``.
    """
