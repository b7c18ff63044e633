"""What a user's own grid means: the values to try of each parameter.

Nothing is enumerated before it has been counted. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from mlops_dagster.errors import refuse
from mlops_dagster.spec.parameters import Parameter

MAX_CANDIDATES = 100_000
RANGE_KEYS = ("start", "stop", "step")


def check_grid(grid: object, known: Mapping[str, Parameter]) -> dict[str, list[Any]]:
    """Return the values to try of each parameter that a grid names.

    Parameters
    ----------
    grid : mapping
        To each parameter a list of values, or a range ``{"start": .., "stop": .., "step": ..}`` that includes its stop
        if a step falls on it.
    known : mapping of str to Parameter
        The parameters there are.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        For an unknown parameter, an empty list, a scalar, a value of the wrong type or out of bounds, a range that
        never ends, and for more than 100,000 candidates, which are counted and not enumerated.

    Examples
    --------
    >>> share = Parameter("max_features", "number", "A share.", minimum=0, maximum=1)
    >>> check_grid({"max_features": {"start": 0.1, "stop": 0.4, "step": 0.1}}, {"max_features": share})
    {'max_features': [0.1, 0.2, 0.3, 0.4]}
    >>> check_grid({"max_features": 0.5}, {"max_features": share})
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: grid.max_features=0.5 (float): give a list of values, [0.5], or a range ...
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
