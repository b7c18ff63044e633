"""Settings as the APIs of Databricks have them: clusters and libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlops_dagster.stack.databricks.settings import NewCluster


def new_cluster(new: NewCluster) -> dict[str, Any]:
    """Return a new cluster as the Clusters API has it."""
    cluster = {name: value for name, value in new.model_dump(exclude_none=True).items() if value not in ({}, [])}
    if new.init_scripts:
        cluster["init_scripts"] = [
            {place: {"destination": path} for place, path in script.items()} for script in cluster["init_scripts"]
        ]
    if new.num_workers == 0:
        # Without these the API takes 0 workers for a cluster that waits for workers for ever.
        single = {"spark.databricks.cluster.profile": "singleNode", "spark.master": "local[*]"}
        cluster["spark_conf"] = {**single, **new.spark_conf}
        cluster["custom_tags"] = {"ResourceClass": "SingleNode", **new.custom_tags}
    return cluster


def libraries(requirements: list[str], wheel: str | None = None) -> list[dict[str, Any]]:
    """Return requirements and wheels as the Libraries API has them."""
    named = [{"whl": wheel}] if wheel else []
    return named + [
        {"whl": one} if one.startswith(("/", "dbfs:/")) else {"pypi": {"package": one}} for one in requirements
    ]
