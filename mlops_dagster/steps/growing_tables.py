"""Tables that append_rows: read what is there, decide on it, and write only if nobody else has written meanwhile."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from mlops_dagster.stack.store import Damaged, Overtaken, StoreError, TableNotFound

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.stack.store import Store, TableVersion

T = TypeVar("T")
_ATTEMPTS = 10


def read_grown(table: str, symbol: str, store: Store) -> tuple[pd.DataFrame, TableVersion]:
    """Read a table that grows: no step can make it anew, so if its files are damaged, say what can be done.

    Raises
    ------
    TableNotFound, StoreError
        As :meth:`mlops_dagster.stack.store.Store.read` does.
    """
    try:
        return store.read(table, symbol)
    except Damaged as error:
        raise Damaged(error.version, error.what, _cure(error.version, store)) from None


def _cure(damaged: TableVersion, store: Store) -> str:
    cure = "What it held can't be made anew: restore the file from a backup"
    for one in reversed(store.history(damaged.table, damaged.symbol)[:-1]):
        names = f'"{one.table}", "{one.symbol}"'
        try:
            store.read(one.table, one.symbol, version=one.version)
        except StoreError:
            continue
        code = (
            f"from mlops_dagster.stack.store import Store; store = Store({json.dumps(store.root)}); "
            f"store.write({names}, store.read({names}, version={one.version})[0])"
        )
        return (
            f"{cure}, or go back to version {one.version} of {one.written_at:%Y-%m-%d %H:%M} UTC, the last that can be "
            f"read, and lose what came later: python -c {shlex.quote(code)}"
        )
    return f"{cure}, or move that directory away to begin without it."


def what_is_there(table: str, symbol: str, store: Store) -> tuple[pd.DataFrame, TableVersion] | tuple[None, None]:
    """Return a table's rows so far and which version has them; nothing if there is no such table yet."""
    try:
        return read_grown(table, symbol, store)
    except TableNotFound:
        return None, None


def append_rows(
    table: str, symbol: str, store: Store, change: Callable[[pd.DataFrame | None], tuple[pd.DataFrame, T]]
) -> tuple[pd.DataFrame, TableVersion, T]:
    """Write what `change` makes of the rows so far; if somebody was faster, ask again about what they left.

    Parameters
    ----------
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


def add_rows(earlier: pd.DataFrame | None, new: pd.DataFrame, same: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Return a table with those rows added that it doesn't have yet, and how many they are.

    Parameters
    ----------
    same : sequence of str
        The columns that say which row it is. A row of which the table has none of these values yet is new.
    """
    import pandas as pd

    new = new.reset_index(drop=True)
    if earlier is None:
        return new, len(new)
    there, mine = (_values(frame.reindex(columns=[*same])) for frame in (earlier, new))
    added = new[~mine.isin(there)]
    return (pd.concat([earlier, added], ignore_index=True) if len(added) else earlier), len(added)


def _values(frame: pd.DataFrame) -> pd.MultiIndex:
    """Return the rows to be compared: what is missing equals what is missing, of whatever type the column is."""
    import pandas as pd

    texts = frame.astype(object)
    return pd.MultiIndex.from_frame(texts.where(texts.notna(), None))
