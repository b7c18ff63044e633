"""A search for better parameters of a model: its grid, its folds, and the estimator that does it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import GroupKFold, KFold, ParameterGrid, StratifiedKFold, TimeSeriesSplit
from sklearn.pipeline import Pipeline

from mlops_dagster.errors import MlopsError, refuse, written
from mlops_dagster.modeling.digest import model_digest
from mlops_dagster.modeling.estimators import make_estimator, make_object, narrowed_parameters, translator
from mlops_dagster.modeling.metrics import metric_of, over_all_classes
from mlops_dagster.modeling.search_results import Folds, SearchResults, to_search_results
from mlops_dagster.modeling.training_set import TrainingSet
from mlops_dagster.search import SharedGridSearchCV, can_share
from mlops_dagster.spec.functions import MODULES, calling
from mlops_dagster.spec.grids import check_grid
from mlops_dagster.spec.model import CrossValidation, Declaration, Search

Grid = dict[str, list[Any]]


def grid_of(declaration: Declaration, preset: str | None = None, grid: Mapping[str, Any] | None = None) -> Grid:
    """Return the values to try of each parameter.

    Parameters
    ----------
    preset : str, optional
        One of the declaration's. Not given: the first.
    grid : mapping, optional
        In its place: to each parameter a list of values, or a range ``{start, stop, step}`` that includes its stop.

    Raises
    ------
    ParameterError
        For an unknown preset or parameter, an empty list, a value that the estimator doesn't take, a range that never
        ends, and for too many candidates.
    """
    presets = _search(declaration).presets
    if grid is not None and preset is not None:
        raise refuse("preset", preset, "a grid of your own was given too; give one of them.")
    if grid is None and preset is not None and preset not in presets:
        raise refuse("preset", preset, f"there is no such preset; there are {', '.join(presets)}.")
    said = grid if grid is not None else presets[preset or next(iter(presets))]
    return check_grid(said, {one.name: one for one in narrowed_parameters(declaration)})


def make_search(
    declaration: Declaration,
    training_set: TrainingSet,
    grid: Mapping[str, list[Any]],
    *,
    folds: int | None = None,
    scoring: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    engine: Any = None,
    cache: Any = None,
    progress: Any = None,
) -> SharedGridSearchCV:
    """Return the estimator that does a search: ``fit(training_set.X_train, training_set.y_train)``, or ``plan``.

    Candidates are in the order of scikit-learn's ``ParameterGrid(grid)``. What they can share exactly is
    done once; everything else is fitted as ``GridSearchCV`` would, and ``work_["not_shared"]`` says why.

    Parameters
    ----------
    grid : mapping
        See :func:`grid_of`.
    folds, scoring : optional
        Others than the declaration's.
    fixed : mapping, optional
        Parameters of all candidates that differ from the declared defaults.
    engine, cache, progress
        As :class:`mlops_dagster.search.SharedGridSearchCV` takes them. Without an engine: one thread, or
        process, per core.

    Raises
    ------
    ParameterError
        If the rows can't be split as declared, or the score is none for the task.
    """
    base = make_estimator(declaration, fixed or {})
    if declaration.estimator.function is None:
        different = list(map(translator(declaration, base), ParameterGrid(dict(grid))))
    else:
        base, different = _made_by_function(declaration, base, grid, fixed or {})
    for name in [name for name in sys.modules if name.startswith(f"{MODULES}.{declaration.name}.")]:
        # Other processes can't import what stands beside a declaration.
        cloudpickle.register_pickle_by_value(sys.modules[name])
    return SharedGridSearchCV(
        base,
        [{name: [value] for name, value in one.items()} for one in different],
        scoring=_scorer(declaration, training_set, scoring),
        n_jobs=-1,
        # The model is built by its own pipeline, with the best parameters.
        refit=False,
        cv=cv_of(declaration, training_set, folds),
        engine=engine,
        cache=cache if can_share(base) else None,
        progress=progress,
    )


def search_results(
    declaration: Declaration,
    cv_results: Mapping[str, Any],
    grid: Mapping[str, list[Any]],
    fixed: Mapping[str, Any] | None = None,
) -> SearchResults:
    """Turn ``cv_results_`` into results in the declaration's words: a table, the best candidate, all its parameters.

    Raises
    ------
    SearchError
        If no candidate has a score.
    """
    declared = {name: one.default for name, one in declaration.parameters.items() if one.default is not None}
    left = {name: value for name, value in {**declared, **(fixed or {})}.items() if name not in grid}
    return to_search_results(cv_results, left, narrowed_parameters(declaration), ParameterGrid(dict(grid)))


def _search(declaration: Declaration) -> Search:
    if declaration.search is None:
        cure = "it declares no search; give it `search` with a preset and cv."
        raise refuse("model", declaration.name, cure)
    return declaration.search


def _made_by_function(
    declaration: Declaration, base: Any, grid: Mapping[str, list[Any]], fixed: Mapping[str, Any]
) -> tuple[Any, list[dict[str, Any]]]:
    """Return an estimator, and what to set in it for each candidate."""
    made = [make_estimator(declaration, {**fixed, **candidate}) for candidate in ParameterGrid(dict(grid))]
    different = [found for one in made if (found := _differences(base, one)) is not None]
    if len(different) == len(made):
        return base, different
    # It makes another kind of estimator of some: each candidate is one as a whole.
    return Pipeline([("model", base)]), [{"model": one} for one in made]


def _differences(base: Any, made: Any) -> dict[str, Any] | None:
    """Return which parameters of one estimator to set so that it becomes another; None if that can't be done."""
    ours, theirs = base.get_params(deep=True), made.get_params(deep=True)
    different = {}
    for name, value in theirs.items():
        plain = not hasattr(value, "get_params") and not isinstance(value, list | tuple)
        if plain and (name not in ours or model_digest(ours[name]) != model_digest(value)):
            different[name] = value
    try:
        same = clone(base).set_params(**different)
    except ValueError:
        return None
    return different if model_digest(same) == model_digest(made) else None


def check_scoring(declaration: Declaration, scoring: str | None = None) -> str:
    """Return the name of the score by which candidates are compared. Not given: the declaration's.

    Raises
    ------
    ParameterError
        If it is none of scikit-learn's, or none for the task.
    """
    said = scoring or _search(declaration).scoring or declaration.metrics[0]
    if ":" in said:
        cure = "candidates are compared by one of scikit-learn's scores; name one as search.scoring."
        raise refuse("scoring", said, cure)
    metric_of(said, declaration, place="scoring")
    return said


def _scorer(declaration: Declaration, training_set: TrainingSet, scoring: str | None) -> Any:
    said = check_scoring(declaration, scoring)
    if training_set.classes is not None and len(training_set.classes) > 2:
        return over_all_classes(said, training_set.classes)
    scorer = get_scorer(said)
    takes = inspect.signature(scorer._score_func).parameters
    of_one_class = "pos_label" in takes and scorer._kwargs.get("average", "binary") == "binary"
    if training_set.positive is None or not of_one_class:
        return said
    # scikit-learn takes 1 for the positive class; here it may be any.
    return make_scorer(
        scorer._score_func,
        response_method=scorer._response_method,
        greater_is_better=scorer._sign > 0,
        **{**scorer._kwargs, "pos_label": training_set.positive},
    )


# ----------------------------------------------------------------------------------------------------------- folds


def cv_of(declaration: Declaration, training_set: TrainingSet, folds: int | None = None) -> Folds:
    """Split the training rows for a search.

    Parameters
    ----------
    folds : int, optional
        Another number of folds than the declaration's.

    Returns
    -------
    list of (array, array)
        Places in ``training_set.X_train`` of each fold's rows to learn from, and to be scored on.

    Raises
    ------
    ParameterError
        If it can't be done: too few rows, groups, times or rows of a class, or a fold has rows of one class only.
    """
    cv, rows = _search(declaration).cv, training_set.rows("train")
    count = folds or cv.folds
    targets = training_set.targets(rows)
    groups = None if training_set.group is None else rows[training_set.group]
    if cv.kind == "splitter":
        found = _given(declaration, cv, rows, targets, groups)
    else:
        enough, of = len(rows), "training rows"
        if cv.kind == "stratified":
            sizes = targets.value_counts()
            enough, of = int(sizes.iloc[-1]), f"rows of class {written(sizes.index[-1])}"
        elif cv.kind == "group":
            enough, of = rows[training_set.group].nunique(), f"groups ({training_set.group})"
        elif cv.kind == "chronological":
            enough, of = rows[training_set.time].nunique() - 1, f"times ({training_set.time}) after the first"
        if enough < count:
            raise refuse("folds", count, f"there are {enough:,} {of}; give fewer folds, or more rows.")
        if cv.kind == "chronological":
            found = _chronological(training_set, cv, rows, count)
        else:
            kinds = {"random": KFold, "stratified": StratifiedKFold, "group": GroupKFold}
            splitter = kinds[cv.kind](count, shuffle=True, random_state=cv.seed)
            found = list(splitter.split(rows, targets, groups))
    if training_set.classes is not None:
        _check_classes(found, targets.to_numpy(), cv)
    return found


def describe_cv(declaration: Declaration, folds: int | None = None) -> str:
    """Say how candidates are scored."""
    cv = _search(declaration).cv
    count = folds or cv.folds
    if cv.kind == "splitter":
        assert cv.splitter is not None
        arguments = ", ".join(f"{name}={value!r}" for name, value in cv.splitter.arguments.items())
        return f"{cv.splitter.class_.rpartition('.')[2]}({arguments})"
    if cv.kind == "chronological":
        ahead = declaration.target.horizon
        gap = str(cv.gap) if cv.gap is not None else "one horizon" if ahead and ahead < 1 else str(ahead or 0)
        return f"{count} folds, each scored on the rows that follow those it learns from, after a gap of {gap}"
    how = {
        "random": "random rows",
        "stratified": "random rows, with the classes' shares",
        "group": f"whole groups ({declaration.group})",
    }[cv.kind]
    return f"{count} folds of {how} (seed {cv.seed})"


def _chronological(training_set: TrainingSet, cv: CrossValidation, rows: pd.DataFrame, count: int) -> Folds:
    """Score on the rows that follow those that are learned from. Rows of one time stay together."""
    times = rows[training_set.time].to_numpy()
    moments = np.unique(times)
    truth_times = training_set.truth_times()
    found = []
    for early, late in TimeSeriesSplit(count).split(moments):
        begin = moments[late[0]]
        learned, scored = times < begin, (times >= begin) & (times <= moments[late[-1]])
        if cv.gap:
            learned &= ~np.isin(times, moments[early][-cv.gap :])
        elif cv.gap is None and truth_times is not None:
            # What a row forecasts has to have happened before the scored rows begin.
            learned &= (truth_times.loc[rows.index] < begin).to_numpy()
        if not learned.any():
            gap = training_set.horizon if cv.gap is None else cv.gap
            cure = f"the first fold has no rows left to learn from after a gap of {gap}; give fewer folds."
            raise refuse("folds", count, cure)
        order = np.argsort(times, kind="stable")
        found.append((order[learned[order]], order[scored[order]]))
    return found


def _given(
    declaration: Declaration, cv: CrossValidation, rows: pd.DataFrame, targets: Any, groups: pd.Series[Any] | None
) -> Folds:
    assert cv.splitter is not None
    place, said = "search.cv.splitter", cv.splitter.class_
    splitter = make_object(declaration, cv.splitter, place)
    if not callable(getattr(splitter, "split", None)):
        raise refuse(f"{place}.class", said, "it has no split; give one of scikit-learn's splitters.")
    try:
        found = calling(place, lambda: list(splitter.split(rows, targets, groups)))
    except MlopsError as error:
        raise refuse(f"{place}.class", said, f"it can't split {len(rows):,} training rows: {error.__cause__}") from None
    if not found or not all(len(train) and len(test) for train, test in found):
        raise refuse(f"{place}.class", said, "it leaves a fold without rows; give it other arguments.")
    return [(np.asarray(train), np.asarray(test)) for train, test in found]


def _check_classes(found: Folds, targets: npt.NDArray[Any], cv: CrossValidation) -> None:
    for number, parts in enumerate(found, 1):
        for part, what in zip(parts, ("to learn from", "to be scored on"), strict=True):
            there = pd.unique(targets[part])
            if len(there) < 2:
                cure = "use kind: stratified, or fewer folds."
                why = f"fold {number} has only rows of class {written(there[0])} {what}; {cure}"
                raise refuse("search.cv.kind", cv.kind, why)
