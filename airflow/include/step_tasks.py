"""A pipeline as a DAG, one task per step, and where it runs: on this machine, or as a Databricks run.

Airflow's configuration says where, in a section of its own: `[mlops] run_on` is `local` or `databricks`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, chain, conf

from include.on_this_machine import LocalStep
from include.orders import SECTION, refuse
from include.parameters import PIPELINES, SEARCHES, STEPS, params_of

RUN_ON = ("local", "databricks")
DEFAULTS: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=30)}


def dag_of(pipeline: str, **options: Any) -> DAG:
    """Return the DAG of a pipeline.

    Parameters
    ----------
    pipeline : str
        Which of the manifest's pipelines.
    **options
        Of `airflow.sdk.DAG`, for example ``doc_md``, ``schedule``, or a ``dag_id`` of its own.
    """
    how: dict[str, Any] = {
        "dag_id": pipeline,
        "description": PIPELINES[pipeline]["description"],
        "schedule": None,
        "params": params_of(pipeline),
        "default_args": DEFAULTS,
        "max_active_runs": 1,  # a run uses all cores of this machine
        "dagrun_timeout": timedelta(hours=12),
        "is_paused_upon_creation": False,
    }
    with DAG(**(how | options)) as dag:
        chain(*(task_of(pipeline, step) for step in PIPELINES[pipeline]["steps"]))
    return dag


def task_of(pipeline: str, step: str) -> BaseOperator:
    """Return the task of a step, in the DAG that is being made.

    Raises
    ------
    AirflowFailException
        If the configuration names no place to run.
    """
    where = conf.get(SECTION, "run_on", fallback=RUN_ON[0])
    if where not in RUN_ON:
        raise refuse("run_on", where, f"give one of {', '.join(RUN_ON)}.")
    how: dict[str, Any] = {
        "pipeline": pipeline,
        "step": step,
        "task_id": step,
        "doc": STEPS[step]["description"],
        "execution_timeout": timedelta(hours=6 if step in SEARCHES else 1),
    }
    if where == "databricks":
        from include.on_databricks import DatabricksStep

        return DatabricksStep(deferrable=step in SEARCHES, **how)
    return LocalStep(**how)
