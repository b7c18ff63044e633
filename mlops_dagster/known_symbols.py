"""What is known of each symbol: whether it has a champion, and whether its prices come from the inbox."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dagster as dg

from mlops_dagster import steps
from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.stack.store import Store

_AT_ONCE = 8  # tables that are read; on an object store each takes a good part of a second


@dataclass(frozen=True)
class KnownSymbol:
    """A symbol, and what schedules and sensors ask about it.

    Attributes
    ----------
    has_champion : bool
        Whether there is a model to forecast with.
    from_inbox : bool
        Whether its prices came as a file of the inbox. The deployment's source then doesn't have them, or others.
    """

    name: str
    has_champion: bool
    from_inbox: bool


def known_symbols(instance: dg.DagsterInstance, store: Store, inbox: str | None) -> list[KnownSymbol]:
    """Return all symbols that are partitions, in the order in which they were added."""
    return ask(instance.get_dynamic_partitions(SYMBOLS.name or ""), store, inbox)


def ask(symbols: Sequence[str], store: Store, inbox: str | None) -> list[KnownSymbol]:
    """Look into the tables of some symbols.

    Raises
    ------
    StoreError
        If the store can't be read.
    """

    def look(symbol: str) -> KnownSymbol:
        prices = store.current("prices", symbol)
        return KnownSymbol(
            symbol,
            has_champion=steps.champion_of(symbol, store) is not None,
            from_inbox=bool(inbox and prices and f"{inbox}/" in prices.metadata.get("origin", "")),
        )

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(look, symbols))
