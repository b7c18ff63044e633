"""The partitions of the assets: one per symbol. New symbols can be added while Dagster runs."""

import dagster as dg

SYMBOLS = dg.DynamicPartitionsDefinition(name="symbol")
