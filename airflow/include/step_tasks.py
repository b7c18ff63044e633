"""A pipeline as a DAG, one task per step, and where it runs: on this machine, or as a Databricks run.

Airflow's configuration says where, in a section of its own: `[mlops] run_on` is `local` or `databricks`.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, chain, conf

from include.on_this_machine import LocalStep
from include.parameters import PIPELINES, SEARCH, SECTION, STEPS, example_of, params_of, refuse, task_of

RUN_ON = ("local", "databricks")
DEFAULTS: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=30)}
DOC = """{description}

Each task is one step; its XCom shows the versions, digests and metrics of what it made. Trigger it in the browser
(**Trigger**), in a shell or over the REST API; a parameter that is left out is as the form says:

    airflow dags trigger {dag_id} --conf '{example}'
"""


def dag_of(pipeline: str, **options: Any) -> DAG:
    """Return the DAG of a pipeline.

    Parameters
    ----------
    pipeline : str
        Which of the manifest's pipelines.
    **options
        Of `airflow.sdk.DAG`, for example ``schedule``, or a ``dag_id`` of its own.
    """
    said, dag_id = PIPELINES[pipeline], options.get("dag_id", pipeline)
    how: dict[str, Any] = {
        "dag_id": pipeline,
        "description": said["description"],
        "doc_md": DOC.format(description=said["description"], dag_id=dag_id, example=json.dumps(example_of(pipeline))),
        "tags": ["mlops", said["steps"][0].rpartition("/")[0]],
        "schedule": None,
        "params": params_of(pipeline),
        "default_args": DEFAULTS,
        "max_active_runs": 1,  # a run uses all cores of this machine
        "dagrun_timeout": timedelta(hours=12),
        "is_paused_upon_creation": False,
    }
    with DAG(**(how | options)) as dag:
        chain(*(make_task(pipeline, step) for step in said["steps"]))
    return dag


def make_task(pipeline: str, step: str) -> BaseOperator:
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
        "task_id": task_of(step),
        "doc": STEPS[step]["description"],
        "execution_timeout": timedelta(hours=6 if task_of(step) == SEARCH else 1),
    }
    if where == "databricks":
        from include.on_databricks import DatabricksStep

        return DatabricksStep(deferrable=task_of(step) == SEARCH, **how)
    return LocalStep(**how)
