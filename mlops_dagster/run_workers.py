"""How the daemon learns that the process of a run is gone: by an operating system's lock, as with MLflow's runs.

Dagster's own launcher can't tell: the code server notices when a run of its own dies, but if it died too (`kill -9` of
everything, a machine that was switched off), or if `dagster job execute` was killed, a run stays STARTED for good, and
every later run of its symbol waits. So the process of a run holds a lock, which even kill -9 releases, and the launcher
that dagster.yaml names looks at it when the daemon asks. No process id or clock is involved, since both may be given
to somebody else again.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from filelock import FileLock, Timeout

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
    """Dagster's default launcher, and it knows which runs of this machine have lost their process."""

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
        if run is not None and not run.is_finished and is_dead(self._instance, run_id):
            self._instance.report_run_canceled(run, GONE)
            return True
        return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]


def hold(instance: dg.DagsterInstance, run_id: str) -> FileLock | None:
    """Take the lock of a run, and clear away those of earlier runs; nothing where the instance has no folder."""
    folder = _folder(instance)
    if folder is None:
        return None
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.lock"):
        earlier = instance.get_run_by_id(path.name.split("@")[0])
        if earlier is None or earlier.is_finished:
            path.unlink(missing_ok=True)
    # Whoever drops the executor may be another thread.
    lock = FileLock(folder / f"{run_id}@{platform.node()}@{_boot()}.lock", thread_local=False)
    lock.acquire()
    return lock


def is_dead(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run had its process on this machine and has it no more."""
    folder = _folder(instance)
    for path in folder.glob(f"{run_id}@*.lock") if folder else ():
        _, machine, boot = path.stem.split("@")
        # A lock of another machine says nothing here: the folder may be shared. A container has its machine's boot.
        if machine == platform.node() or boot == _boot():
            try:
                FileLock(path, blocking=False).acquire().lock.release()
            except Timeout:
                return False
            return True
    return False


def _folder(instance: dg.DagsterInstance) -> Path | None:
    return Path(instance.root_directory) / "run_workers" if instance.is_persistent else None


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "unknown"
