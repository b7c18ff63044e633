"""The processes of runs: how they are launched, and how the daemon learns that one is gone.

Dagster's own launcher starts a new process, which imports for seconds. And it can't tell whether that lives: the code
server notices when a run of its own dies, but if it died too (`kill -9` of everything, a machine that was switched
off), or if `dagster job execute` was killed, a run stays STARTED for good, and every later run of its symbol waits. So
the process of a run holds a lock, and the launcher that dagster.yaml names looks at it when the daemon asks.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._grpc.types import ExecuteRunArgs
from filelock import FileLock

from mlops_dagster.run_locks import folder_of, hold, is_dead, process_of
from mlops_dagster.warm_runs import CannotServeError, launch, peer

GONE = (
    "The process of this run is gone: it was killed, ran out of memory, or its machine was switched off. "
    "What its finished steps have stored is kept; launch the run again."
)


class HeldExecutor(dg.Executor):
    """Runs as another executor does, and holds the run's lock for as long as it lives: until the run's last event."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor
        self._lock: FileLock | None = None

    @property
    def retries(self) -> Any:
        """How steps are tried again."""
        return self._executor.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        """Take the lock, then run the steps."""
        self._lock = hold(plan_context.instance, plan_context.run_id)
        yield from self._executor.execute(plan_context, execution_plan)


_plain: Any = dg.in_process_executor


def _held_in_process(context: dg.InitExecutorContext) -> HeldExecutor:
    return HeldExecutor(_plain.executor_creation_fn(context))


# Dagster's in-process executor, whose process the daemon can tell from a dead one.
in_process_executor = dg.ExecutorDefinition(
    name="in_process",
    config_schema=_plain.config_schema,
    description=_plain.description,
    executor_creation_fn=_held_in_process,
)


class RunLauncher(DefaultRunLauncher):
    """Dagster's default launcher; its runs start warm, and it knows which of this machine have lost their process."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Have the run executed by a copy of a process that has imported all it needs, or else as Dagster does."""
        try:
            self._launch_warm(context)
        except CannotServeError as why:
            self._instance.report_engine_event(f"This run starts in a new process. {why}", context.dagster_run)
            super().launch_run(context)

    def _launch_warm(self, context: LaunchRunContext) -> None:
        run, folder = context.dagster_run, folder_of(self._instance)
        if folder is None or context.workspace is None or run.job_code_origin is None or run.remote_job_origin is None:
            raise CannotServeError("It doesn't say what to load, or its instance has no folder.")
        python = run.job_code_origin.repository_origin
        other = python.container_image or python.executable_path
        if Path(other).parent != Path(sys.executable).parent:
            raise CannotServeError(f"Its code has a Python of its own: {other}")
        name = run.remote_job_origin.location_name
        env, cwd = _world(context.workspace.get_code_location(name).origin)
        launch(folder, ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref()), name, env, cwd)
        self._run_ids.add(run.run_id)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes, so that the daemon asks about each run that has started, every few seconds."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether a run's process lives. What can't be known from here counts as living."""
        if is_dead(self._instance, run.run_id):
            return CheckRunHealthResult(WorkerStatus.FAILED, GONE)
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def terminate(self, run_id: str) -> bool:
        """Terminate a run; one whose process is gone is canceled at once, since nobody is left to be asked."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            if is_dead(self._instance, run_id):
                self._instance.report_run_canceled(run, GONE)
                return True
            if (process := process_of(self._instance, run_id)) is not None:
                self._instance.report_run_canceling(run)
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGINT)
                return True
        return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]


def _world(origin: Any) -> tuple[dict[str, str], str]:
    """Return the environment and the working directory of a code server, which its runs have, too."""
    if isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin):
        return dict(os.environ), str(Path.cwd())  # this process has started it
    where = getattr(origin, "socket", None)
    if where is None:
        raise CannotServeError("Its code server listens on a port; from here its environment can't be known.")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(where)
            process = Path("/proc") / str(peer(connection)[0])
        pairs = (os.fsdecode(one).partition("=") for one in (process / "environ").read_bytes().split(b"\0") if one)
        return {name: value for name, _, value in pairs}, str((process / "cwd").readlink())
    except OSError as error:
        raise CannotServeError(f"The environment of its code server can't be read: {error}") from None
