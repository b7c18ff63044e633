"""One task per step, and where it runs: on this machine, or as a Databricks run.

Airflow's configuration says where, in a section of its own: `[mlops] run_on` is `local` or `databricks`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, conf

from include import pipelines
from include.on_this_machine import LocalStep
from include.orders import SECTION

RUN_ON = ("local", "databricks")
DEFAULTS: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=30)}
HOURS = {step.name: 6 for step in (pipelines.GRID_SEARCH_RESULTS, pipelines.SPARK_GRID_SEARCH_RESULTS)}


def task_of(pipeline: pipelines.Pipeline, step: pipelines.Step) -> BaseOperator:
    """Return the task of a step, in the DAG that is being made.

    Raises
    ------
    include.errors.ParameterError
        If the configuration names no place to run.
    """
    where = conf.get(SECTION, "run_on", fallback=RUN_ON[0])
    if where not in RUN_ON:
        raise pipelines.refuse(f"[{SECTION}] run_on", where, f"give one of {', '.join(RUN_ON)}.")
    how: dict[str, Any] = {
        "task_id": step.name,
        "doc": step.description,
        "execution_timeout": timedelta(hours=HOURS.get(step.name, 1)),
    }
    if where == "databricks":
        from include.on_databricks import DatabricksStep

        return DatabricksStep(pipeline=pipeline, step=step, deferrable=step.name in HOURS, **how)
    return LocalStep(pipeline=pipeline, step=step, **how)
