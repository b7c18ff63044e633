"""What every task shares, wherever its step runs: what `mlops` is told, and what is kept of its report."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink, conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.execution_time.xcom import XCom

from include.parameters import given_in

_REFUSED = 2  # of `mlops`: what was given was refused; trying again wouldn't help
SHOWN = ("data_version", "model_digest", "metrics", "best_parameters", "mlflow_url")


def orders(pipeline: str, step: str, context: Any) -> tuple[str, list[str]]:
    """Return what `mlops` is told: who calls, for the option before the command's name, and the command.

    Each step is told what the whole run was given, so that the first refuses what is wrong with any.
    """
    run_id = context["dag_run"].run_id
    ti = context["ti"]
    # A task that is cleared begins anew: its attempts before were no failures, and `max_tries` has grown by them.
    attempt = ti.try_number - max(0, ti.max_tries - (context["task"].retries or 0))
    origin = {"orchestrator": "airflow", "run_id": run_id, "attempt": max(1, attempt)}
    if base := conf.get("api", "base_url", fallback=""):
        origin["url"] = f"{base.rstrip('/')}/dags/{context['dag_run'].dag_id}/runs/{quote(run_id, safe='')}"
    partition, given = given_in(pipeline, context["params"])
    command = ["step", step, f"--pipeline={pipeline}", f"--partition={partition}", f"--given={json.dumps(given)}"]
    if made := made_by_run(context):
        command.append(f"--inputs={json.dumps(made)}")
    return f"--origin={json.dumps(origin)}", [*command, "--json"]


def made_by_run(context: Any) -> dict[str, Any]:
    """Return the versions of the tables that this run's earlier tasks have made: another run may write the same."""
    earlier = sorted(context["task"].get_flat_relative_ids(upstream=True))
    reports = context["ti"].xcom_pull(task_ids=earlier) if earlier else []
    return {table: version for report in reports for table, version in (report or {}).get("outputs", {}).items()}


def failure(step: str, said: dict[str, Any], more: str = "") -> AirflowException:
    """Return the error of a step that failed, from what `mlops` has printed; Airflow tries again what may succeed."""
    kind = AirflowFailException if said.get("exit_status") == _REFUSED else AirflowException
    return kind(f"{step}: {said['error']}: {said['message']}{more}")


class MlflowLink(BaseOperatorLink):
    """The button that leads from a task to its run in MLflow."""

    name = "MLflow"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address that the step has reported; a step without a run in MLflow has none."""
        return XCom.get_value(ti_key=ti_key, key="mlflow_url") or ""


def hand_on(report: dict[str, Any], context: Any) -> dict[str, Any]:
    """Return what of a step's report is worth keeping: versions, digests, metrics, links.

    Some are handed on under their own names as well, as texts: of an object Airflow's pages show nothing.
    """
    table = {name: value for name, value in report["table"].items() if name != "columns"}
    kept = {**{name: value for name, value in report.items() if name != "plots"}, "table": table}
    for name in SHOWN:
        if value := kept.get(name):
            text = value if isinstance(value, str) else ", ".join(f"{one} {value[one]}" for one in value)
            context["ti"].xcom_push(key=name, value=text)
    return kept
