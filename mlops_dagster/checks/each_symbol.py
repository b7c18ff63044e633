"""How a check is declared here: once, answered for each symbol."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg

from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.compute.report import readable
from mlops_dagster.stack.store import TableNotFound


def check_of_each_symbol(
    asset: dg.AssetsDefinition, *, blocking: bool = False
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Make a check whose result is kept for each symbol, so that one symbol's can't hide another's.

    Its numbers are shown as texts: of numbers Dagster draws one line through all symbols' results, as they come.
    """

    def decorate(check: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        @functools.wraps(check)
        def of_one_symbol(*given: Any, **resources: Any) -> dg.AssetCheckResult:
            try:
                result = check(*given, **resources)
            except TableNotFound as error:
                return not_judged(str(error))
            texts = {name: dg.MetadataValue.text(_text(value.value)) for name, value in result.metadata.items()}
            return result._replace(metadata=texts)

        with warnings.catch_warnings():
            # Partitioned checks are a preview. The exact pin of dagster, and the tests, guard against what may change.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(asset=asset, partitions_def=SYMBOLS, blocking=blocking)(of_one_symbol)

    return decorate


def not_judged(why: str, **metadata: Any) -> dg.AssetCheckResult:
    """Say that there is nothing to judge yet, which isn't a failure."""
    return dg.AssetCheckResult(
        passed=True, severity=dg.AssetCheckSeverity.WARN, description=f"Not judged yet: {why}", metadata=metadata
    )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(readable(value))
