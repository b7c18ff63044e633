"""How a check is declared here: once, answered for each symbol."""

import warnings
from collections.abc import Callable

import dagster as dg

from mlops_dagster.assets.partitions import SYMBOLS


def check_of_each_symbol(
    asset: dg.AssetsDefinition, *, blocking: bool = False
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Make a check whose result is kept for each symbol, so that one symbol's can't hide another's."""

    def decorate(check: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        with warnings.catch_warnings():
            # Partitioned checks are a preview. The exact pin of dagster, and the tests, guard against what may change.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(asset=asset, partitions_def=SYMBOLS, blocking=blocking)(check)

    return decorate
