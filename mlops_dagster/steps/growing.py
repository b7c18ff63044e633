"""Tables that grow: read what is there, decide on it, and write only if nobody else has written meanwhile.

What belongs here: that loop. What doesn't: what is added (`promotion.py`, `forecast.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mlops_dagster.stack.store import Overtaken, TableNotFound

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.stack.store import Store, TableVersion

T = TypeVar("T")
_ATTEMPTS = 10


def what_is_there(table: str, symbol: str, store: Store) -> tuple[pd.DataFrame, TableVersion] | tuple[None, None]:
    """Return a table's rows so far and which version has them; nothing if there is no such table yet."""
    try:
        return store.read(table, symbol)
    except TableNotFound:
        return None, None


def grow(
    table: str, symbol: str, store: Store, change: Callable[[pd.DataFrame | None], tuple[pd.DataFrame, T]]
) -> tuple[pd.DataFrame, TableVersion, T]:
    """Write what `change` makes of the rows so far; if somebody was faster, ask again about what they left.

    Parameters
    ----------
    table, symbol : str
        Which table.
    store : Store
        Where it is.
    change : callable
        From the rows so far, or None, to all rows and whatever else the caller wants to know of it.

    Returns
    -------
    DataFrame, TableVersion, object
        All rows, the version that has them, and what `change` said besides.

    Raises
    ------
    Overtaken
        If others were faster ten times.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return _once(table, symbol, store, change)
        except Overtaken:
            continue
    return _once(table, symbol, store, change)


def _once(
    table: str, symbol: str, store: Store, change: Callable[[pd.DataFrame | None], tuple[pd.DataFrame, T]]
) -> tuple[pd.DataFrame, TableVersion, T]:
    before, version = what_is_there(table, symbol, store)
    whole, besides = change(before)
    return whole, store.write(table, symbol, whole, replacing=version or "nothing"), besides
