"""The grids of a search: the presets, and what a user's own grid means.

Nothing is enumerated before it has been counted. Standard library only, like `pipelines.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from mlops_dagster.errors import refuse
from mlops_dagster.pipelines import (
    FOREST,
    RECIPE,
    RECIPES,
    SEARCH,
    SEARCH_DEFAULTS,
    Parameter,
    Pipeline,
    Step,
    check_parameters,
    resolve_forest,
    share_or_count,
)
from mlops_dagster.spec.parameters import by_step

MAX_CANDIDATES = 100_000
RANGE_KEYS = ("start", "stop", "step")
_FOREST = {parameter.name: parameter for parameter in FOREST}

# The blog's own grid: 4 x 2 x 3 x 3 x 4 = 288 candidates.
ARTICLE: Mapping[str, list[Any]] = {
    "bootstrap": [True],
    "max_depth": [80, 90, 100, 110],
    "max_features": [2, 3],
    "min_samples_leaf": [3, 4, 5],
    "min_samples_split": [8, 10, 12],
    "n_estimators": [100, 200, 300, 1000],
}
# Around each recipe's defaults, which suit data as different as noisy returns and smooth prices.
PRESET_GRIDS: Mapping[str, Mapping[str, Mapping[str, list[Any]]]] = {
    "article": {"article": ARTICLE, "honest": ARTICLE},
    "small": {
        "honest": {
            "max_depth": [4, 80],
            "max_features": [0.15, 0.3],
            "min_samples_leaf": [50, 100, 200],
            "n_estimators": [50, 100, 200],
        },
        "article": {
            "max_depth": [8, 80],
            "max_features": [2, 1.0],
            "min_samples_leaf": [1, 3, 10],
            "n_estimators": [25, 50, 100],
        },
    },
}


@dataclass(frozen=True)
class Search:
    """A search that has been checked.

    Parameters
    ----------
    grid : dict of str to list
        The values to try of each parameter, in the order in which they were given.
    forest : dict
        All parameters of the forest that the grid leaves as they are.
    cv : {"chronological", "shuffled"}
        How the training rows are split.
    folds : int
        Into how many folds.
    gap : int or None
        Rows to leave out before each fold's scored rows; None means the horizon.
    scoring : str
        scikit-learn's name of the score.
    candidates : {"table", "children"}
        How MLflow shows the candidates.
    preset : str or None
        The grid's name, if it has one.
    """

    grid: dict[str, list[Any]]
    forest: dict[str, Any]
    cv: str
    folds: int
    gap: int | None
    scoring: str
    candidates: str
    preset: str | None

    @property
    def size(self) -> int:
        """The number of candidates."""
        return math.prod(len(values) for values in self.grid.values())


def check_step(step: Step, given: Mapping[str, object], recipe: str = RECIPES[0]) -> dict[str, Any]:
    """Check all that a step is given, alone and together, as every tool does before the first step of a run works.

    Parameters
    ----------
    step : Step
        Which step.
    given : mapping
        Its parameters. None means: not given.
    recipe : {"honest", "article"}
        The recipe of the run, as far as it is known.

    Returns
    -------
    dict
        What was given, without what is None.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        For any parameter that is unknown, bad, or contradicts another.
    """
    checked = check_parameters(step.parameters, given)
    if step.parameters == SEARCH:
        resolve_search(recipe, checked)
    return checked


def check_run(pipeline: Pipeline, given: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Check all that a run of a pipeline is given, and return what each of its steps takes.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        For any parameter that no step of the pipeline knows, that is bad, or that contradicts another.

    Examples
    --------
    >>> from mlops_dagster.pipelines import SEARCH_MODEL
    >>> check_run(SEARCH_MODEL, {"recipe": "article", "folds": 2})["grid_search_results"]
    {'folds': 2}
    """
    taken = by_step(pipeline, given)
    recipe = RECIPE.check(given.get(RECIPE.name) or RECIPES[0])
    return {step.name: check_step(step, taken[step.name], recipe) for step in pipeline.steps}


def resolve_search(recipe: str, given: Mapping[str, object]) -> Search:
    """Check the parameters of a search and fill in the defaults.

    Parameters
    ----------
    recipe : {"honest", "article"}
        Whose defaults to use.
    given : mapping
        The parameters of `pipelines.SEARCH`. None means: not given.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        For any parameter that is unknown, bad, or contradicts another.

    Examples
    --------
    >>> resolve_search("article", {"preset": "article"}).size
    288
    """
    checked = check_parameters(SEARCH, given)
    grid = resolve_grid(recipe, checked)
    forest = resolve_forest(recipe, {"random_state": checked.get("random_state")})
    if "random_state" in grid and "random_state" in checked:
        raise refuse("random_state", checked["random_state"], "the grid has it too; give it once.")
    cv = checked.get("cv", "shuffled" if recipe == "article" else "chronological")
    if cv == "shuffled" and "gap" in checked:
        raise refuse("gap", checked["gap"], "shuffled rows have no gap; leave it out, or give cv: chronological.")
    return Search(
        grid=grid,
        forest={name: value for name, value in forest.items() if name not in grid},
        cv=cv,
        folds=checked.get("folds", SEARCH_DEFAULTS["folds"]),
        gap=checked.get("gap"),
        scoring=checked.get("scoring", SEARCH_DEFAULTS["scoring"]),
        candidates=checked.get("candidates", SEARCH_DEFAULTS["candidates"]),
        preset=None if "grid" in checked else checked.get("preset", SEARCH_DEFAULTS["preset"]),
    )


def resolve_grid(recipe: str, given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values to try of each parameter.

    Parameters
    ----------
    recipe : {"honest", "article"}
        Whose preset to use.
    given : mapping
        ``preset`` or ``grid``, not both; neither means the preset "small". Other parameters are left alone. A grid
        maps parameters of the forest to a list of values, or to a range ``{"start": .., "stop": .., "step": ..}``
        that includes its stop if a step falls on it.

    Returns
    -------
    dict of str to list
        Integers stay integers. A `max_features` up to 1 is a share (a float), above it a count (an integer).

    Raises
    ------
    mlops_dagster.errors.ParameterError
        For an unknown parameter, an empty list, a scalar, a value of the wrong type or out of bounds, a range that
        never ends, and for more than 100,000 candidates, which are counted and not enumerated.

    Examples
    --------
    >>> resolve_grid("honest", {"grid": {"max_features": {"start": 0.1, "stop": 0.4, "step": 0.1}}})
    {'max_features': [0.1, 0.2, 0.3, 0.4]}
    >>> resolve_grid("honest", {"grid": {"n_estimators": 100}})
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: grid.n_estimators=100 (int): give a list of values, [100], or a range ...
    """
    RECIPE.check(recipe)
    grid = given.get("grid")
    if grid is None:
        preset = given.get("preset") or SEARCH_DEFAULTS["preset"]
        return {name: list(values) for name, values in PRESET_GRIDS[preset][recipe].items()}
    if given.get("preset") is not None:
        raise refuse("preset", given["preset"], "a grid of your own was given too; give one of them.")
    counted = check_grid(grid, _FOREST)
    return {
        name: [share_or_count(value) for value in values] if name == "max_features" else values
        for name, values in counted.items()
    }


def check_grid(grid: object, known: Mapping[str, Parameter]) -> dict[str, list[Any]]:
    """Return the values to try of each parameter that a grid names.

    Parameters
    ----------
    grid : mapping
        To each parameter a list of values, or a range, see :func:`resolve_grid`.
    known : mapping of str to Parameter
        The parameters there are.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        As :func:`resolve_grid` says.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise refuse("grid", grid, f"give values for at least one of {', '.join(known)}.")
    for name, values in grid.items():
        if name not in known:
            raise refuse(f"grid.{name}", values, f"there is no such parameter; there are {', '.join(known)}.")
    counted = {name: _count(known[name], values) for name, values in grid.items()}
    candidates = math.prod(counted.values())
    if candidates > MAX_CANDIDATES:
        product = " x ".join(f"{count:,} {name}" for name, count in counted.items())
        cure = f"that is {product} = {candidates:,} candidates; at most {MAX_CANDIDATES:,} can be searched."
        raise refuse("grid", dict(grid), cure)
    return {
        name: [_named(known[name], f"grid.{name}").check(value) for value in _enumerate(grid[name])] for name in grid
    }


def _count(parameter: Parameter, values: object) -> int:
    """Say how many values there are, without enumerating a range."""
    name = f"grid.{parameter.name}"
    if isinstance(values, Mapping):
        return _count_range(parameter, values)
    if not isinstance(values, list | tuple):
        cure = f"give a list of values, [{values}], or a range {{start: .., stop: .., step: ..}}."
        raise refuse(name, values, cure)
    if not values:
        raise refuse(name, values, "the list is empty; give at least one value, or leave the parameter out.")
    return len(values)


def _count_range(parameter: Parameter, values: Mapping[str, Any]) -> int:
    name = f"grid.{parameter.name}"
    if parameter.kind not in ("integer", "number"):
        raise refuse(name, dict(values), f"only numbers have ranges; give a list of values, each {parameter.domain}.")
    if set(values) != set(RANGE_KEYS):
        raise refuse(name, dict(values), "a range is {start: .., stop: .., step: ..}, exactly these three.")
    for key in ("start", "stop"):
        _named(parameter, f"{name}.{key}").check(values[key])
    a_step = Parameter(f"{name}.step", parameter.kind, "How far the values are apart.", minimum=0, maximum=1e9)
    if a_step.check(values["step"]) == 0:
        raise refuse(a_step.name, values["step"], "the range would never end; give a step above 0.")
    start, stop, step = (_exact(values[key]) for key in RANGE_KEYS)
    if start > stop:
        raise refuse(name, dict(values), "the range ends before it starts; give a start that is not above the stop.")
    return int((stop - start) // step) + 1


def _enumerate(values: Any) -> list[Any]:
    if not isinstance(values, Mapping):
        return list(values)
    start, stop, step = (_exact(values[key]) for key in RANGE_KEYS)
    whole = all(isinstance(values[key], int) for key in RANGE_KEYS)
    places = range(int((stop - start) // step) + 1)
    # Each from the start, in exact arithmetic: 0.1 + 0.1 + 0.1 isn't 0.3.
    return [int(start + place * step) if whole else float(start + place * step) for place in places]


def _exact(number: float) -> Fraction:
    """Return the decimal number that was written, not the binary one next to it."""
    return Fraction(repr(number))


def _named(parameter: Parameter, name: str) -> Parameter:
    return replace(parameter, name=name)
