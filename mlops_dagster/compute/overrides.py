"""What a launch may change of its compute: the run config of the resource `compute`, as the launchpad shows it.

Every field is optional and none has a default: Dagster copies defaults into runs, where they would outlive the
deployment that they came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import BaseModel, ValidationError

from mlops_dagster.errors import ParameterError, refuse
from mlops_dagster.stack.deployment_rules import problems

if TYPE_CHECKING:
    from mlops_dagster.stack.databricks.settings import DatabricksSettings
    from mlops_dagster.stack.deployment import Deployment

Settings = TypeVar("Settings", bound=BaseModel)
_TEXTS = dg.Map(str, str)  # type: ignore[no-untyped-call]

_HERE = {
    "slots": (int, "How many units of a search Spark works on at the same time."),
    "train": (bool, "Whether the trees of a forest grow on Spark when it is trained, too."),
    "spark_conf": (
        _TEXTS,
        "More of Spark's own settings for the session that is opened, for example {spark.executor.memory: 4g}.",
    ),
}
_CLUSTER = {
    "existing_cluster_id": (str, "Run on this cluster, which is there already, in place of the deployment's."),
    "num_workers": (int, "How many workers a new cluster has; 0 is a single machine."),
    "node_type_id": (
        str,
        "The machines of a new cluster, driver included, in place of the deployment's.",
    ),
    "spark_conf": (_TEXTS, "More of Spark's own settings for a new cluster."),
    "timeout_seconds": (int, "A Databricks run that takes longer is cancelled."),
}


def fields_of(deployment: Deployment) -> dict[str, dg.Field]:
    """Return the config that the compute of a deployment takes in the launchpad."""
    fields = _HERE if deployment.compute == "here" else _CLUSTER
    return {
        name: dg.Field(kind, is_required=False, description=f"{description} Default: as the deployment says.")
        for name, (kind, description) in fields.items()
    }


def changed(deployment: Deployment, given: Mapping[str, Any], resource: str = "compute") -> Deployment:
    """Return the deployment as the config of one run changes it, which is that of a resource.

    Raises
    ------
    ParameterError
        If a value can't be, or doesn't go with the deployment; the message names it, and the cure.
    """
    # Inside, the cluster is there already, as the run wanted it.
    if not given or deployment.inside:
        return deployment
    if deployment.compute == "here":
        values = deployment.spark.model_dump() | {name: given[name] for name in ("slots", "train") if name in given}
        values["conf"] = {**deployment.spark.conf, **given.get("spark_conf", {})}
        return deployment.model_copy(update={"spark": _validated(deployment.spark, values, given, resource)})
    assert deployment.databricks is not None
    overridden = deployment.model_copy(update={"databricks": _on_databricks(deployment.databricks, given, resource)})
    if found := problems(overridden):
        raise ParameterError(f"resources.{resource}.config: {' '.join(found)}")
    return overridden


def _on_databricks(settings: DatabricksSettings, given: Mapping[str, Any], resource: str) -> DatabricksSettings:
    values = settings.model_dump(exclude_none=True)
    if "timeout_seconds" in given:
        values["timeout_seconds"] = given["timeout_seconds"]
    if "existing_cluster_id" in given:
        values["cluster"] = {"existing": given["existing_cluster_id"]}
    for name in ("num_workers", "node_type_id", "spark_conf"):
        if name in given and "new" not in values["cluster"]:
            cure = "only a cluster that is made for the run (cluster.new) takes it; leave it out."
            if "existing_cluster_id" in given:
                cure = "the cluster of existing_cluster_id is there already; give one of the two."
            raise _refused(resource, name, given[name], cure)
    if "num_workers" in given:
        values["cluster"]["new"].pop("autoscale", None)
        values["cluster"]["new"]["num_workers"] = given["num_workers"]
    if "node_type_id" in given:
        for name in ("instance_pool_id", "driver_instance_pool_id", "driver_node_type_id"):
            values["cluster"]["new"].pop(name, None)
        values["cluster"]["new"]["node_type_id"] = given["node_type_id"]
    if "spark_conf" in given:
        values["cluster"]["new"]["spark_conf"] = {**values["cluster"]["new"]["spark_conf"], **given["spark_conf"]}
    return _validated(settings, values, given, resource)


def _validated(settings: Settings, values: Mapping[str, Any], given: Mapping[str, Any], resource: str) -> Settings:
    try:
        return type(settings).model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][-1] if problem["loc"] else "")
        name = {"conf": "spark_conf", "existing": "existing_cluster_id"}.get(name, name)
        raise _refused(resource, name, given.get(name), f"{problem['msg']}.") from None


def _refused(resource: str, name: str, value: object, cure: str) -> ParameterError:
    return refuse(f"resources.{resource}.config.{name}", value, cure)
