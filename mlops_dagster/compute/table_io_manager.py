"""The IO manager of a model's assets, so that an asset of one's own takes their tables as values."""

from typing import Any, NoReturn

import dagster as dg

from mlops_dagster.spec.steps import ALL
from mlops_dagster.stack.store import Store


class TableIOManager(dg.IOManager):
    """Reads a model's tables from its store, as they are now. It writes none: the model's own steps do."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def load_input(self, context: dg.InputContext) -> Any:
        """Return a table as a DataFrame; of several partitions those that there are, by their keys."""
        table = context.asset_key.path[-1]
        if not context.has_asset_partitions:
            return self.store.read(table, ALL)[0]
        keys = context.asset_partition_keys
        if len(keys) == 1:
            return self.store.read(table, keys[0])[0]
        there = set(self.store.symbols(table))
        return {key: self.store.read(table, key)[0] for key in keys if key in there}

    def handle_output(self, context: dg.OutputContext, obj: Any) -> NoReturn:
        """Refuse a value: what a step makes is in the store already."""
        raise dg.Failure(f"{context.step_key} returned a {type(obj).__name__}; a model's steps return none.")
