"""How a check is declared here: once, answered for each symbol, by whoever asks."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.compute.inputs import tables_of_run
from mlops_dagster.compute.report import readable
from mlops_dagster.stack.registry import Registry
from mlops_dagster.stack.store import TableNotFound
from mlops_dagster.steps import Inputs
from mlops_dagster.steps.findings import Finding


@dataclass(frozen=True)
class Check:
    """A question about a symbol's tables, whose answer is kept for each symbol: one's can't hide another's.

    Parameters
    ----------
    asset : dagster.AssetsDefinition
        What it is about.
    ask : callable
        From the tables and the registry to a finding. Its name is the check's, its docstring the description.
    blocking : bool
        Whether nothing that comes after the asset runs if the answer is no.
    severity : dagster.AssetCheckSeverity
        Of a no.
    """

    asset: dg.AssetsDefinition
    ask: Callable[[Inputs, Registry], Finding]
    blocking: bool
    severity: dg.AssetCheckSeverity

    def answer(self, tables: Inputs, registry: Registry) -> dg.AssetCheckResult:
        """Ask. What can't be judged yet passes with a warning, which isn't a failure.

        Its numbers are shown as texts: of numbers Dagster draws one line through all symbols' results, as they come.
        """
        try:
            found = self.ask(tables, registry)
        except TableNotFound as error:
            found = Finding(None, str(error))
        return dg.AssetCheckResult(
            passed=found.good is not False,
            severity=dg.AssetCheckSeverity.WARN if found.good is None else self.severity,
            description=f"Not judged yet: {found.said}" if found.good is None else found.said,
            metadata={name: dg.MetadataValue.text(_text(value)) for name, value in found.numbers.items()},
        )

    @property
    def definition(self) -> dg.AssetChecksDefinition:
        """What Dagster runs after the asset."""

        def of_one_symbol(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            tools = context.resources
            return self.answer(tables_of_run(context, tools.store), tools.tracker.registry)

        with warnings.catch_warnings():
            # Partitioned checks are a preview. The exact pin of dagster, and the tests, guard against what may change.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(
                asset=self.asset,
                name=self.ask.__name__,
                description=inspect.getdoc(self.ask),
                blocking=self.blocking,
                partitions_def=SYMBOLS,
                required_resource_keys={"store", "tracker"},
            )(of_one_symbol)


def check_of_each_symbol(
    asset: dg.AssetsDefinition,
    *,
    blocking: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
) -> Callable[[Callable[[Inputs, Registry], Finding]], Check]:
    """Make a function a check of an asset."""
    return lambda ask: Check(asset, ask, blocking, severity)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(readable(value))
