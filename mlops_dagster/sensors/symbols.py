"""The sensor that keeps the deployment's symbols there, as partitions."""

from dagster import (
    DefaultSensorStatus,
    ResourceParam,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from mlops_dagster.assets.partitions import SYMBOLS, missing_symbols
from mlops_dagster.stack.deployment import Deployment


@sensor(
    description="Adds the deployment's symbols as partitions where they are missing, as on a fresh instance.",
    minimum_interval_seconds=29,
    default_status=DefaultSensorStatus.RUNNING,
)
def deployment_symbols(
    context: SensorEvaluationContext, deployment: ResourceParam[Deployment]
) -> SensorResult | SkipReason:
    """Add the symbols that are always there."""
    missing = missing_symbols(context.instance, deployment.symbols)
    if not missing:
        return SkipReason("All symbols of the deployment are there.")
    return SensorResult(dynamic_partitions_requests=[SYMBOLS.build_add_request(missing)])
