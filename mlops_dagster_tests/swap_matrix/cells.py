"""The axes of the swap matrix, and which of their combinations make sense."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product

MANY = "Dagster run of many"
ORCHESTRATORS = ("Dagster UI and daemon", "Dagster CLI", MANY, "Airflow", "Databricks job", "mlops shell")
COMPUTES = ("local", "Spark standalone", "Spark Connect", "step launcher", "Pipes", "the job's cluster")
TRACKINGS = ("SQLite", "MLflow server")
STORAGES = ("local path", "S3", "volume")

_DAGSTER = ORCHESTRATORS[:3]
_BY_DAGSTER_ONLY = ("step launcher", "Pipes")
_ON_DATABRICKS = (*_BY_DAGSTER_ONLY, "the job's cluster")


@dataclass(frozen=True)
class Cell:
    """One combination: who starts the steps, where they run, where runs are tracked, where tables lie."""

    orchestrator: str
    compute: str
    tracking: str
    storage: str

    def __str__(self) -> str:
        return ", ".join(getattr(self, field.name) for field in fields(self))

    @property
    def on_databricks(self) -> bool:
        return self.compute in _ON_DATABRICKS


REFERENCE = Cell("mlops shell", "local", "SQLite", "local path")


def why_not(cell: Cell) -> str | None:
    """Return why a combination makes no sense, or None if it does."""
    if cell.compute in _BY_DAGSTER_ONLY and cell.orchestrator not in _DAGSTER:
        return "The step launcher and Pipes are Dagster's; others submit the step to the cluster themselves."
    if cell.compute == "step launcher" and cell.orchestrator == MANY:
        return "The step launcher's runs are of one partition each."
    if cell.compute == "the job's cluster" and cell.orchestrator not in ("Databricks job", "Airflow"):
        return "Dagster reaches a cluster by the step launcher or by Pipes; the shell runs steps where it is."
    if cell.orchestrator == "Databricks job" and cell.compute != "the job's cluster":
        return "A Databricks job runs on its own cluster."
    if cell.on_databricks and cell.tracking == "SQLite":
        return "A cluster can't reach a database on another machine's disk."
    if cell.on_databricks and cell.storage == "local path":
        return "A cluster can't reach another machine's disk."
    if not cell.on_databricks and cell.storage == "volume":
        return "A volume can be written on Databricks only."
    return None


ALL = [Cell(*values) for values in product(ORCHESTRATORS, COMPUTES, TRACKINGS, STORAGES)]
CELLS = [cell for cell in ALL if why_not(cell) is None]

# What CI runs of it. The step launcher and Pipes are compared in compute/test_databricks_same.py, Airflow in airflow/,
# a standalone Spark in stack/test_spark_engine.py, a run of many in test_many_partitions.py.
SLICE = [
    Cell("Dagster UI and daemon", "Spark Connect", "MLflow server", "S3"),
    Cell("Databricks job", "the job's cluster", "MLflow server", "volume"),
]
