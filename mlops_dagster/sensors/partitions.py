"""The sensor that keeps a model's partitions there: those that its data have, and those of the deployment."""

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.stack.deployment import Deployment


def partitions_sensor(model: OfModel, deployment: Deployment) -> dg.SensorDefinition | None:
    """Make the sensor of a model, if its partitions are neither none nor listed."""
    declaration, partitions = model.declaration, model.partitions
    if (
        declaration is None
        or declaration.partitions is None
        or declaration.data_owner != model.name
        or not isinstance(partitions, dg.DynamicPartitionsDefinition)
    ):
        return None
    name = declaration.partitions.name

    @dg.sensor(
        name=f"{model.name}_partitions",
        description=f"Adds each {name} that the data of {model.name} have, or the deployment lists, as a partition. "
        "None is ever removed: what was made of it stays.",
        minimum_interval_seconds=59,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def keep_partitions(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from mlops_dagster.stack.table_sources import partitions_of

        given = deployment.data_parameters(declaration)
        known = set(context.instance.get_dynamic_partitions(partitions.name or ""))
        listed = deployment.partitions.get(declaration.data_owner, [])
        wanted = [*(partitions_of(declaration, given=given) or []), *listed]
        missing = [key for key in dict.fromkeys(wanted) if key not in known]
        if not missing:
            return dg.SkipReason(f"Each {name} of the data is there: {len(known)}.")
        return dg.SensorResult(dynamic_partitions_requests=[partitions.build_add_request(missing)])

    return keep_partitions
