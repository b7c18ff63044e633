"""What the API says about runs: the JSON of `runs/get`, `runs/get-output` and `runs/list`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlops_dagster_tests.standin.errors import invalid
from mlops_dagster_tests.standin.settings import Settings
from mlops_dagster_tests.standin.states import ENDED, Run, State, TaskRun

LOGS = 5 * 1024 * 1024  # of a task's output, its end
_CODES = {
    "SUCCESS": ("SUCCESS", "SUCCESS"),
    "CANCELED": ("USER_CANCELED", "SUCCESS"),
    "SUCCESS_WITH_FAILURES": ("SUCCESS_WITH_FAILURES", "SUCCESS"),
    "MAXIMUM_CONCURRENT_RUNS_REACHED": ("MAX_CONCURRENT_RUNS_EXCEEDED", "CLIENT_ERROR"),
}


def state_view(state: State) -> dict[str, Any]:
    """Return the `state` of API 2.0/2.1 and the `status` that newer clients read."""
    old = {
        "life_cycle_state": state.life,
        "state_message": state.message,
        "user_cancelled_or_timedout": state.result in ("CANCELED", "TIMEDOUT"),
    }
    new: dict[str, Any] = {"state": "TERMINATED" if state.life in ENDED else state.life}
    if state.result is not None:
        old["result_state"] = state.result
    if state.life in ENDED:
        code, kind = _CODES.get(state.result or "SKIPPED", ("RUN_EXECUTION_ERROR", "CLIENT_ERROR"))
        if state.life == "INTERNAL_ERROR":
            code, kind = "INTERNAL_ERROR", "INTERNAL_ERROR"
        elif state.life == "SKIPPED" and state.result is None:
            code, kind = "SKIPPED", "SUCCESS"
        new["termination_details"] = {"code": code, "type": kind, "message": state.message}
    return {"state": old, "status": new}


def run_view(settings: Settings, run: Run, tasks: bool = True) -> dict[str, Any]:
    """Return a run as `runs/get` does."""
    view: dict[str, Any] = {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "number_in_job": run.run_id,
        "original_attempt_run_id": run.run_id,
        "job_run_id": run.run_id,
        "run_name": run.name,
        "run_type": run.kind,
        "run_page_url": page_url(settings, run),
        "creator_user_name": settings.user,
        "trigger": "ONE_TIME",
        "format": "MULTI_TASK",
        **_times(run.state),
        **state_view(run.state),
    }
    if run.parameters:
        view["job_parameters"] = [{"name": name, "value": value} for name, value in run.parameters.items()]
    if tasks:
        view["tasks"] = [task_view(settings, run, task) for task in run.tasks]
    return view


def task_view(settings: Settings, run: Run, task: TaskRun) -> dict[str, Any]:
    view = {
        **task.task,
        "run_id": task.run_id,
        "attempt_number": task.attempt,
        "run_page_url": f"{page_url(settings, run)}/{task.run_id}",
        **_times(task.state),
        **state_view(task.state),
    }
    # Serverless has none; a task that waits for others, or for a cluster that doesn't come, has none yet.
    waits = task.process is None and (run.state.life == "QUEUED" or "pending" in run.faults)
    if task.task.get("environment_key") is None and task.state.life != "BLOCKED" and not waits:
        view["cluster_instance"] = {"cluster_id": task.cluster_id}
        if task.process is not None:
            view["cluster_instance"]["spark_context_id"] = str(task.run_id)
    return view


def page_url(settings: Settings, run: Run) -> str:
    return f"{settings.url}/jobs/{run.job_id}/runs/{run.run_id}"


def _times(state: State) -> dict[str, int]:
    times = {"start_time": state.started, "setup_duration": 0, "execution_duration": 0, "cleanup_duration": 0}
    if state.ended is not None:
        times.update(end_time=state.ended, execution_duration=state.ended - state.started)
        times["run_duration"] = state.ended - state.started
    return times


def output_view(settings: Settings, run: Run, run_id: int) -> dict[str, Any]:
    """Return the output of one task run; a run's own id will do if it has one task."""
    wanted = [task for task in run.tasks if task.run_id == run_id]
    if not wanted:
        if len(run.latest()) > 1:
            raise invalid(
                "Retrieving the output of runs with multiple tasks is not supported. "
                "Please retrieve the output of each individual task run instead."
            )
        wanted = run.tasks[-1:]
    task = wanted[0]
    printed = task.printed("stdout")
    view: dict[str, Any] = {
        "metadata": {**run_view(settings, run, tasks=False), **task_view(settings, run, task)},
        "logs": printed[-LOGS:],
        "logs_truncated": len(printed) > LOGS,
    }
    if task.state.result not in (None, "SUCCESS"):
        view.update(failure(task))
    return view


def failure(task: TaskRun) -> dict[str, str]:
    """Return what a failed task says: its exception, else the state's message."""
    file = task.folder / "error.json"
    if file.exists():
        said: Mapping[str, str] = json.loads(file.read_text())
        return {"error": said["error"], "error_trace": said["error_trace"]}
    return {"error": task.state.message, "error_trace": task.printed("stderr")[-20_000:]}
