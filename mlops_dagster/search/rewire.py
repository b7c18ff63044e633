"""scikit-learn's own functions, with other ones in place of some that they call. All that leans on its code is here.

Sharing needs no code of ours in place of scikit-learn's: its searches hand all fits of a round to ``Parallel`` at once,
and take back what each one scored. Overriding ``_run_search`` can't do that, since what scores is made inside of
``fit``, and ``evaluate_candidates`` fits at once.
"""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any


def rewired(function: Any, **others: Any) -> Any:
    """Return a function, undecorated, that calls others by the same names.

    Examples
    --------
    >>> def area(width: float) -> float:
    ...     return square(width) / 2
    >>> rewired(area, square=lambda width: 10 * width)(3)
    15.0
    """
    bare = getattr(function, "__wrapped__", function)
    names = {**bare.__globals__, **others}
    made = FunctionType(bare.__code__, names, bare.__name__, bare.__defaults__, bare.__closure__)
    made.__kwdefaults__ = bare.__kwdefaults__
    return made


def knows(function: Any, *names: str) -> bool:
    """Whether a function uses these global names, also in the loops and lambdas inside of it."""
    return {*names} <= _names_in(getattr(function, "__wrapped__", function).__code__)


def _names_in(code: CodeType) -> set[str]:
    inside = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names_in, inside))
