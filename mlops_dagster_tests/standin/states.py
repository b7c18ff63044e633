"""What is known of a run and of its tasks at any moment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_dagster_tests.standin.faults import Fault

ENDED = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")


def now() -> int:
    return int(time.time() * 1000)


@dataclass
class State:
    """What `runs/get` says about a run, and about each of its tasks."""

    life: str = "PENDING"
    result: str | None = None
    message: str = ""
    started: int = field(default_factory=now)
    ended: int | None = None

    def end(self, result: str | None, message: str = "", life: str = "TERMINATED") -> None:
        self.result, self.message, self.life, self.ended = result, message, life, now()


@dataclass
class TaskRun:
    """One attempt at one task."""

    run_id: int
    task: Mapping[str, Any]
    folder: Path
    cluster_id: str
    attempt: int = 0
    state: State = field(default_factory=State)
    process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> str:
        return str(self.task["task_key"])

    def printed(self, name: str) -> str:
        """Return what it wrote to `stdout` or `stderr` so far."""
        file = self.folder / name
        return file.read_text(errors="replace") if file.exists() else ""


@dataclass
class Run:
    """One run: of what was submitted, or of a job."""

    run_id: int
    job_id: int
    kind: str  # SUBMIT_RUN, JOB_RUN
    body: Mapping[str, Any]
    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    state: State = field(default_factory=State)
    tasks: list[TaskRun] = field(default_factory=list)
    cancel_at: float | None = None
    deadline: float = float("inf")

    @property
    def canceled(self) -> bool:
        return self.cancel_at is not None and time.monotonic() >= self.cancel_at

    @property
    def late(self) -> bool:
        return time.monotonic() >= self.deadline

    @property
    def active(self) -> bool:
        return self.state.life not in ENDED

    def latest(self) -> dict[str, TaskRun]:
        return {task.key: task for task in self.tasks}
