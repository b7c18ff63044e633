"""One task per step, and where it runs: `mlops` on this machine, or a Databricks run.

What belongs here: from a step to a task, and the task that calls `mlops`. What doesn't: the work of a step, which
neither this nor any file here knows; Databricks (`on_databricks.py`).

Airflow's configuration says where, in a section of its own: `[mlops] run_on` is `local` or `databricks`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperator, conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include import pipelines
from include.parameters import check_run, given_to

SECTION = "mlops"
RUN_ON = ("local", "databricks")
DEFAULTS: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=30)}
HOURS = {step.name: 6 for step in (pipelines.GRID_SEARCH_RESULTS, pipelines.SPARK_GRID_SEARCH_RESULTS)}
SHOWN = ("data_version", "model_digest", "metrics", "best_parameters", "mlflow_url")
_REFUSED = 2  # `mlops`: a parameter or setting was refused before any work


def task_of(pipeline: pipelines.Pipeline, step: pipelines.Step) -> BaseOperator:
    """Return the task of a step, in the DAG that is being made.

    Raises
    ------
    include.pipelines.ParameterError
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


def orders(pipeline: pipelines.Pipeline, step: pipelines.Step, context: Any) -> tuple[str, list[str]]:
    """Return what `mlops` is told: who calls, for the option before the command's name, and the command.

    Raises
    ------
    AirflowFailException
        If the run was given what its pipeline doesn't take; trying again wouldn't help.
    """
    params = context["params"]
    try:
        check_run(pipeline, context["dag_run"].conf or {}, params)
    except pipelines.ParameterError as error:
        raise AirflowFailException(str(error)) from None
    run_id = context["dag_run"].run_id
    origin = {"orchestrator": "airflow", "run_id": run_id}
    if base := conf.get("api", "base_url", fallback=""):
        origin["url"] = f"{base.rstrip('/')}/dags/{context['dag_run'].dag_id}/runs/{quote(run_id, safe='')}"
    given = json.dumps(given_to(step, params))
    command = ["step", step.name, f"--symbol={params['symbol']}", f"--given={given}", "--json"]
    return f"--origin={json.dumps(origin)}", command


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


class LocalStep(BaseOperator):
    """Runs one step by the command `mlops` of an environment of its own, without a shell in between.

    Parameters
    ----------
    pipeline, step
        What to run.
    """

    ui_color = "#e8f0e4"

    def __init__(self, *, pipeline: pipelines.Pipeline, step: pipelines.Step, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.step = step
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the step; what it prints goes to the log as it comes.

        Raises
        ------
        AirflowFailException
            If a parameter or setting was refused.
        AirflowException
            If the work failed.
        """
        origin, command = orders(self.pipeline, self.step, context)
        line = [_program(), origin, *command]
        self.log.info("Running %s", line)
        with tempfile.TemporaryFile("w+") as output:
            self._process = subprocess.Popen(  # noqa: S603 - no shell, and each argument was checked
                line,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=_environment(os.environ),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
            assert self._process.stderr is not None
            with self._process.stderr as lines:
                for said in lines:
                    self.log.info("%s", said.rstrip())
            status = self._process.wait()
            output.seek(0)
            printed = output.read()
        if status:
            raise _failure(self.step.name, status, printed)
        return hand_on(json.loads(printed), context)

    def on_kill(self) -> None:
        """End the step and whatever it started; a polite end lets its MLflow run say KILLED."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.log.warning("Stopping %s", self.step.name)
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.log.warning("It didn't stop; killing it")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _program() -> str:
    given = conf.get(SECTION, "command", fallback="mlops")
    found = shutil.which(given)
    if found is None:
        cure = "there is no such command; give the path of `mlops` in the environment of mlops_dagster."
        raise AirflowFailException(str(pipelines.refuse(f"[{SECTION}] command", given, cure)))
    return found


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without Airflow's own settings, connections and path, which are none of a step's."""
    return {name: value for name, value in ours.items() if not name.startswith(("AIRFLOW", "_AIRFLOW", "PYTHONPATH"))}


def _die_with_parent() -> None:
    """Let a killed worker take its step along, so that a second try isn't the first one's rival (Linux)."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _failure(step: str, status: int, printed: str) -> AirflowException:
    try:
        said = json.loads(printed)
        message = f"{step}: {said['error']}: {said['message']}"
    except (ValueError, KeyError, TypeError):
        message = f"{step} ended with status {status}; the lines above say why."
    return AirflowFailException(message) if status == _REFUSED else AirflowException(message)
