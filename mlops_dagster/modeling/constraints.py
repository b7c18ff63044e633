"""What the parameters of an estimator may be, as scikit-learn's own classes say, and what a declaration leaves of it.

The only module that knows scikit-learn's private parameter constraints. Classes of others have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from numbers import Integral
from typing import Any

from sklearn.utils._param_validation import Interval, Options, RealNotInt, make_constraint

from mlops_dagster.errors import refuse
from mlops_dagster.spec.parameters import Parameter

Constraints = list[Any]
"""scikit-learn's: a value is right if one of them is satisfied. None of them: anything is."""

_TRIED = {"boolean": (True,), "text": ("a text",), "integer": (0, 1, 2), "number": (0.0, 0.5, 1.0, 2.0)}


def constraints_of(estimator: Any, argument: str) -> Constraints:
    """Return the constraints of an estimator's parameter, or of a part's, as ``model__max_depth``."""
    path, _, name = argument.rpartition("__")
    part = estimator.get_params(deep=True)[path] if path else estimator
    said = getattr(type(part), "_parameter_constraints", {}).get(name, "no_validation")
    return [] if isinstance(said, str) else [make_constraint(one) for one in said]


def wrong_values(estimator: Any) -> Iterator[tuple[str, Any, str, str]]:
    """Find the values that scikit-learn would refuse in ``fit``: name, value, the part's class, what it takes."""
    known = estimator.get_params(deep=True)
    parts = {"": estimator} | {f"{name}__": one for name, one in known.items() if hasattr(one, "get_params")}
    for prefix, part in parts.items():
        for name, value in {} if isinstance(part, type) else part.get_params(deep=False).items():
            constraints = constraints_of(part, name)
            if constraints and not _fits(constraints, value):
                yield f"{prefix}{name}", value, type(part).__name__, _words(constraints)


def as_taken(parameter: Parameter, value: Any, constraints: Constraints) -> Any:
    """Return a number as scikit-learn takes it: a share as a float, a count as an integer, however it was written."""
    if parameter.kind != "number" or not constraints:
        return value
    whole = [int(value)] if value == int(value) else []
    return next((one for one in (float(value), *whole) if _fits(constraints, one)), value)


def narrow(parameter: Parameter, constraints: Constraints, of: str) -> Parameter:
    """Return a declared parameter with the type and bounds of the estimator's, where those are narrower.

    Parameters
    ----------
    of : str
        The estimator, for messages.

    Raises
    ------
    ParameterError
        If the estimator takes no such type, or nothing within the declared bounds or choices.
    """
    if not constraints:
        return parameter
    place, said = f"parameters.{parameter.name}", f"{of} takes {_words(constraints)}."
    if parameter.kind in ("integer", "number"):
        found = _numbers(parameter, constraints)
        if None not in (found.minimum, found.maximum) and found.minimum > found.maximum:  # type: ignore[operator]
            raise refuse(f"{place}.minimum", found.minimum, f"it is above the maximum, {found.maximum}: {said}")
    else:
        options = [each for one in constraints if isinstance(one, Options) and not one.hidden for each in one.options]
        texts = tuple(sorted(each for each in options if isinstance(each, str)))
        found = (
            replace(parameter, choices=parameter.choices or texts or None) if parameter.kind == "text" else parameter
        )
        for choice in found.choices or ():
            if not _fits(constraints, choice):
                raise refuse(f"{place}.choices", choice, said)
    if not any(_fits(constraints, value) for value in _tried(found)):
        raise refuse(f"{place}.type", parameter.kind, said)
    return found


def _numbers(parameter: Parameter, constraints: Constraints) -> Parameter:
    intervals = [one for one in constraints if isinstance(one, Interval)]
    if parameter.kind == "integer":  # those of shares only don't take it
        intervals = [one for one in intervals if one.type is not RealNotInt]
    if not intervals:
        return parameter
    low, above = min((_end(one.left, -math.inf), one.closed in ("right", "neither")) for one in intervals)
    high, inside = max((_end(one.right, math.inf), one.closed in ("right", "both")) for one in intervals)
    found = parameter
    if low > _end(found.minimum, -math.inf) or (above and low == found.minimum):
        found = replace(found, minimum=low, above=above)
    if high < _end(found.maximum, math.inf) or (not inside and high == found.maximum):
        found = replace(found, maximum=high, below=not inside)
    shares = [one.right for one in intervals if one.type is RealNotInt and one.right is not None]
    if shares and any(one.type is Integral for one in intervals):
        found = replace(found, whole_above=max(shares))
    return found


def _tried(parameter: Parameter) -> tuple[Any, ...]:
    """Return some values of which the estimator has to take one, if it takes any of this type."""
    if parameter.choices is not None or parameter.kind in ("boolean", "text"):
        return parameter.choices or _TRIED[parameter.kind]
    ends = [end for end in (parameter.minimum, parameter.maximum) if end is not None]
    middle = sum(ends) / max(len(ends), 1)
    if parameter.kind == "integer":
        return (*_TRIED["integer"], *map(int, (*ends, middle)))
    return (*_TRIED["number"], *map(float, (*ends, middle)))


def _end(end: float | None, missing: float) -> float:
    return missing if end is None else float(end)


def _fits(constraints: Iterable[Any], value: Any) -> bool:
    return any(one.is_satisfied_by(value) for one in constraints)


def _words(constraints: Constraints) -> str:
    # What is hidden scikit-learn takes without speaking of it.
    return " or ".join(str(one) for one in constraints if not one.hidden)
