"""The partitions of the assets: one per symbol. New symbols can be added while Dagster runs."""

import dagster as dg

SYMBOLS = dg.DynamicPartitionsDefinition(name="symbol")


def missing_symbols(instance: dg.DagsterInstance, symbols: list[str]) -> list[str]:
    """Return those symbols that aren't partitions yet."""
    known = set(instance.get_dynamic_partitions(SYMBOLS.name or ""))
    return [symbol for symbol in symbols if symbol not in known]
