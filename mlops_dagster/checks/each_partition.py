"""How a check is declared here: once, answered for each partition."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.compute.inputs import tables_of_run
from mlops_dagster.compute.report import readable
from mlops_dagster.stack.registry import Registry
from mlops_dagster.stack.store import TableNotFound
from mlops_dagster.steps import Inputs
from mlops_dagster.steps.questions import Finding


def check_of_each_partition(
    asset: dg.AssetsDefinition,
    *,
    blocking: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
    model: OfModel,
) -> Callable[[Callable[[Inputs, Registry], Finding]], dg.AssetChecksDefinition]:
    """Make a function from tables and registry to a finding a check, whose result is kept for each partition.

    So one partition's result can't hide another's. What can't be judged yet passes with a warning.
    Numbers are shown as texts: of numbers Dagster draws one line through all partitions' results, as they come.
    """

    def decorate(ask: Callable[[Inputs, Registry], Finding]) -> dg.AssetChecksDefinition:
        def of_one_partition(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            store, tracker = model.tools(context.resources)
            try:
                found = ask(tables_of_run(context, store, model.declaration), tracker.registry)
            except TableNotFound as error:
                found = Finding(None, str(error))
            return dg.AssetCheckResult(
                passed=found.good is not False,
                severity=dg.AssetCheckSeverity.WARN if found.good is None else severity,
                description=f"Not judged yet: {found.said}" if found.good is None else found.said,
                metadata={name: dg.MetadataValue.text(_text(value)) for name, value in found.numbers.items()},
            )

        with warnings.catch_warnings():
            # Partitioned checks are a preview. The exact pin of dagster, and the tests, guard against what may change.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(
                asset=asset,
                name=ask.__name__,
                description=inspect.getdoc(ask),
                blocking=blocking,
                partitions_def=model.partitions,
                required_resource_keys=model.tool_keys,
            )(of_one_partition)

    return decorate


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(readable(value))
