"""The life of runs: submitted, waiting for a cluster, running, ending, ended; and what cuts it short."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from mlops_dagster_tests.standin import bodies, processes
from mlops_dagster_tests.standin.errors import ApiError, invalid
from mlops_dagster_tests.standin.faults import Faults
from mlops_dagster_tests.standin.files import Files
from mlops_dagster_tests.standin.orders import order_of
from mlops_dagster_tests.standin.settings import Settings
from mlops_dagster_tests.standin.states import ENDED, Run, State, TaskRun
from mlops_dagster_tests.standin.views import run_view

PAUSE = 0.03  # between two looks at what is going on
CANCELED = "Run cancelled."


class Runs:
    """All runs of the workspace, newest last."""

    def __init__(self, settings: Settings, files: Files, faults: Faults) -> None:
        self.settings = settings
        self.files = files
        self.faults = faults
        self.lock = threading.RLock()
        self._runs: dict[int, Run] = {}
        self._tokens: dict[str, int] = {}
        self._starting = threading.Lock()
        self._stopped = False
        self._numbers = itertools.count(time.time_ns() // 1_000_000 % 10**9 * 1000)

    def number(self) -> int:
        return next(self._numbers)

    def submit(self, body: Mapping[str, Any]) -> int:
        bodies.check_submit(body, self.settings.clusters)
        return self.begin("SUBMIT_RUN", self.number(), body, body.get("run_name") or "Untitled")

    def begin(
        self,
        kind: str,
        job_id: int,
        body: Mapping[str, Any],
        name: str,
        parameters: Mapping[str, str] | None = None,
        token: str | None = None,
        wait: Callable[[Run], str | None] = lambda _: None,
    ) -> int:
        """Start a run in a thread of its own. `wait` says why it can't start yet: QUEUED, SKIPPED or None."""
        token = token or body.get("idempotency_token")
        with self.lock:
            if token and token in self._tokens:
                return self._tokens[token]
            run = Run(self.number(), job_id, kind, body, name, parameters or {}, self.faults.for_run(name))
            if seconds := body.get("timeout_seconds"):
                run.deadline = time.monotonic() + seconds
            for task in body["tasks"]:
                self._attempt(run, task, 0)
            self._runs[run.run_id] = run
            if token:
                self._tokens[token] = run.run_id
        threading.Thread(target=self._live, args=(run, wait), daemon=True, name=f"run-{run.run_id}").start()
        return run.run_id

    def get(self, run_id: Any) -> Run:
        """Return the run with this id, or the run that has the task run with this id."""
        with self.lock:
            for run in self._runs.values():
                if str(run.run_id) == str(run_id) or any(str(task.run_id) == str(run_id) for task in run.tasks):
                    return run
        raise invalid(f"Run {run_id} does not exist.")

    def all(self) -> list[Run]:
        with self.lock:
            return sorted(self._runs.values(), key=lambda run: -run.run_id)

    def cancel(self, run: Run) -> None:
        if run.active and run.cancel_at is None:
            fault = run.faults.get("cancel_ignored")
            ignored = 0.0 if fault is None else float("inf") if fault.seconds is None else fault.seconds
            run.cancel_at = time.monotonic() + ignored

    def delete(self, run: Run) -> None:
        if run.active:
            raise ApiError(400, "INVALID_STATE", f"Run {run.run_id} is active; cancel it before deleting it.")
        with self.lock:
            del self._runs[run.run_id]

    def stop(self) -> None:
        """End every process and start no other; the workspace is going down."""
        with self._starting:
            self._stopped = True
        for run in self.all():
            for task in run.tasks:
                if task.process is not None:
                    processes.end(task.process, task.folder, min(1.0, self.settings.kill_seconds))

    # What a run's own thread does

    def _attempt(self, run: Run, task: Mapping[str, Any], attempt: int) -> TaskRun:
        folder = self.settings.root / "runs" / str(run.run_id) / f"{task['task_key']}{f'-{attempt}' if attempt else ''}"
        new = task.get("new_cluster") is not None or task.get("environment_key") is not None
        cluster = f"{time.strftime('%m%d-%H%M%S')}-{run.run_id % 10**8:08d}"
        if task.get("job_cluster_key"):
            cluster += f"-{task['job_cluster_key']}"
        elif not new:
            cluster = task["existing_cluster_id"]
        made = TaskRun(self.number(), task, folder, cluster, attempt)
        with self.lock:
            run.tasks.append(made)
        return made

    def _live(self, run: Run, wait: Callable[[Run], str | None]) -> None:
        try:
            self._begin_and_end(run, wait)
        except Exception as error:  # noqa: BLE001 - the run says so, as the real service does
            traceback.print_exc()
            run.state.end("FAILED", f"Unexpected failure of the stand-in: {error!r}", "INTERNAL_ERROR")
        self._close_tasks(run)
        self._write(run)

    def _begin_and_end(self, run: Run, wait: Callable[[Run], str | None]) -> None:
        while why := wait(run):
            if why == "SKIPPED":
                message = "The run was skipped because the limit of concurrent runs of its job was reached."
                return run.state.end("MAXIMUM_CONCURRENT_RUNS_REACHED", message, "SKIPPED")
            run.state.life = why
            if run.canceled:
                return run.state.end("CANCELED", CANCELED)
            time.sleep(PAUSE)
        run.state.life = "PENDING"
        if fault := run.faults.get("skipped"):
            return run.state.end(fault.result, fault.message, "SKIPPED")
        if fault := run.faults.get("internal_error"):
            return run.state.end("FAILED", fault.message, "INTERNAL_ERROR")
        fault = run.faults.get("pending")
        pending = self.settings.pending_seconds
        if fault is not None:
            pending = float("inf") if fault.seconds is None else fault.seconds
        if self._sleep(run, pending):
            run.state.life = "RUNNING"
            self._write(run)
            self._run_tasks(run)
        return self._end(run)

    def _sleep(self, run: Run, seconds: float) -> bool:
        """Wait; return False as soon as the run is cancelled or late."""
        until = time.monotonic() + seconds
        while not (run.canceled or run.late):
            if time.monotonic() >= until:
                return True
            time.sleep(min(PAUSE, max(0.0, until - time.monotonic())))
        return False

    def _run_tasks(self, run: Run) -> None:
        """Run each task in a thread, as soon as those that it depends on have ended."""
        started: dict[str, threading.Thread] = {}
        while len(started) < len(run.latest()) or any(thread.is_alive() for thread in started.values()):
            for key, task in run.latest().items():
                if key in started or run.canceled or run.late:
                    continue
                before = [str(each["task_key"]) for each in task.task.get("depends_on") or []]
                if any(name not in started or started[name].is_alive() for name in before):
                    task.state.life = "BLOCKED"
                    continue
                results = [run.latest()[name].state.result for name in before]
                if task.task.get("run_if", "ALL_SUCCESS") != "ALL_DONE" and any(each != "SUCCESS" for each in results):
                    task.state.end("UPSTREAM_FAILED", "An upstream task failed.")
                started[key] = threading.Thread(target=self._run_task, args=(run, task), daemon=True)
                started[key].start()
            if run.canceled or run.late:
                for thread in started.values():
                    thread.join()
                return
            time.sleep(PAUSE)

    def _run_task(self, run: Run, task: TaskRun) -> None:
        while task.state.life not in ENDED:
            try:
                self._execute(run, task)
            except processes.StartError as error:
                task.state.end("FAILED", str(error), "INTERNAL_ERROR" if "Library" in str(error) else "TERMINATED")
            except Exception as error:  # noqa: BLE001 - as in _live
                traceback.print_exc()
                task.state.end("FAILED", f"Unexpected failure of the stand-in: {error!r}", "INTERNAL_ERROR")
            retries = task.task.get("max_retries") or 0
            again = task.state.result == "FAILED" or (
                task.state.result == "TIMEDOUT" and bool(task.task.get("retry_on_timeout"))
            )
            if again and (retries < 0 or task.attempt < retries) and not (run.canceled or run.late):
                self._sleep(run, (task.task.get("min_retry_interval_millis") or 0) / 1000)
                task = self._attempt(run, task.task, task.attempt + 1)

    def _execute(self, run: Run, task: TaskRun) -> None:
        order = order_of(self.settings, run, task)
        task.state = State("RUNNING")
        with self._starting:
            if self._stopped:
                raise processes.StartError("The workspace is going down.")
            process = task.process = processes.start(self.settings, self.files, order)
        begun, killing = time.monotonic(), run.faults.get("kill")
        limit = task.task.get("timeout_seconds") or float("inf")
        cut_short = None
        while cut_short is None and process.poll() is None:
            spent = time.monotonic() - begun
            if run.canceled:
                cut_short = ("CANCELED", CANCELED)
                run.state.life = "TERMINATING"
            elif run.late or spent >= limit:
                cut_short = ("TIMEDOUT", "Timed out.")
            elif killing is not None and spent >= (killing.seconds or 0):
                processes.kill(process, task.folder)
            else:
                time.sleep(PAUSE)
        if cut_short is not None:
            task.state.life = "TERMINATING"
            processes.end(process, task.folder, self.settings.kill_seconds)
        processes.kill(process, task.folder)  # what the task left behind goes with its cluster
        self._deliver_logs(task)
        task.state.end(*(cut_short or _said_by(process.returncode)))

    def _deliver_logs(self, task: TaskRun) -> None:
        target = ((task.task.get("new_cluster") or {}).get("cluster_log_conf") or {}).get("dbfs") or {}
        if target.get("destination"):
            folder = self.files.local(target["destination"]) / task.cluster_id / "driver"
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("stdout", "stderr"):
                (folder / name).write_bytes((task.folder / name).read_bytes())

    def _end(self, run: Run) -> None:
        result, message = self._outcome(run)
        if fault := run.faults.get("result"):
            result, message = fault.result or "FAILED", fault.message
        if fault := run.faults.get("terminating"):
            run.state.life = "TERMINATING"
            until = float("inf") if fault.seconds is None else time.monotonic() + fault.seconds
            while time.monotonic() < until:
                time.sleep(PAUSE)
        # The step launcher takes TERMINATING as the end: the result is there by then.
        run.state.result, run.state.message = result, message
        run.state.life = "TERMINATING"
        time.sleep(self.settings.terminating_seconds)
        life = "INTERNAL_ERROR" if any(task.state.life == "INTERNAL_ERROR" for task in run.tasks) else "TERMINATED"
        run.state.end(result, message, life)

    def _outcome(self, run: Run) -> tuple[str, str]:
        bad = [task for task in run.latest().values() if task.state.result != "SUCCESS"]
        if not bad:
            return "SUCCESS", ""
        if run.canceled:
            return "CANCELED", CANCELED
        if run.late:
            return "TIMEDOUT", f"Run exceeded its timeout of {run.body.get('timeout_seconds')} seconds."
        first = next((task for task in bad if task.state.result != "UPSTREAM_FAILED"), bad[0])
        result = first.state.result if first.state.result == "TIMEDOUT" and len(run.latest()) == 1 else "FAILED"
        return result or "FAILED", f"Task {first.key} failed with message: {first.state.message}."

    def _close_tasks(self, run: Run) -> None:
        for task in run.tasks:
            if task.state.life not in ENDED:
                task.state.end(run.state.result, run.state.message, run.state.life)
            if "result" in run.faults:
                task.state.result, task.state.message = run.state.result, run.state.message

    def _write(self, run: Run) -> None:
        folder = self.settings.root / "runs" / str(run.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps(run_view(self.settings, run), indent=1))


def _said_by(code: int) -> tuple[str, str]:
    """Return the result and the message of a task whose process ended by itself."""
    if code == 0:
        return "SUCCESS", ""
    if code < 0:
        name = signal.Signals(-code).name
        return (
            "FAILED",
            f"The Python process exited with exit code {128 - code} ({name}). It may have been out of memory.",
        )
    return "FAILED", "Workload failed, see run output for details"
