"""What the state of a run means, and the error of one that doesn't succeed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlops_dagster.errors import MlopsError

_GOING_ON = ("QUEUED", "PENDING", "RUNNING", "BLOCKED", "WAITING_FOR_RETRY", "TERMINATING")
_TERMINAL = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")
_RESULTS = {
    "FAILED": "the task failed",
    "TIMEDOUT": "it took longer than its timeout, and Databricks stopped it",
    "CANCELED": "somebody cancelled it",
    "MAXIMUM_CONCURRENT_RUNS_REACHED": "Databricks skipped it, because the job has too many runs at the same time",
    "EXCLUDED": "Databricks left it out, because its conditions were not met",
    "SUCCESS_WITH_FAILURES": "some of its tasks failed",
    "UPSTREAM_FAILED": "it didn't run, because what it depends on failed",
    "UPSTREAM_CANCELED": "it didn't run, because what it depends on was cancelled",
    "DISABLED": "it didn't run, because it is disabled",
}


@dataclass(frozen=True)
class Waiting:
    """The run goes on. A state that this code has never heard of is named, and waited for."""

    unknown: str | None = None


@dataclass(frozen=True)
class Succeeded:
    """The run is done, all of it."""


@dataclass(frozen=True)
class Failed:
    """The run will never succeed."""

    reason: str


def verdict(
    life_cycle_state: str | None, result_state: str | None, message: str | None = None
) -> Waiting | Succeeded | Failed:
    """Say what the state of a run means.

    Parameters
    ----------
    life_cycle_state, result_state : str or None
        The names that the Jobs API uses, known to us or not.
    message : str, optional
        What Databricks says about it.

    Examples
    --------
    >>> verdict("TERMINATING", None)
    Waiting(unknown=None)
    >>> verdict("TERMINATED", "SUCCESS")
    Succeeded()
    >>> verdict("SKIPPED", None, "another run was active")
    Failed(reason='Databricks skipped it: another run was active')
    """
    said = f": {message.strip().rstrip('.')}" if message and message.strip() else ""
    if life_cycle_state == "INTERNAL_ERROR":
        return Failed(f"Databricks had an internal error{said}")
    if life_cycle_state == "SKIPPED":
        return Failed(f"Databricks skipped it{said}")
    # Of these two the work is over, though the cluster of the second isn't gone yet.
    if life_cycle_state == "TERMINATED" or (life_cycle_state == "TERMINATING" and result_state):
        if result_state == "SUCCESS":
            return Succeeded()
        if not result_state:
            return Failed(f"it ended without a result{said}")
        return Failed(_RESULTS.get(result_state, f"it ended with the unknown result {result_state}") + said)
    return Waiting(None if life_cycle_state in _GOING_ON else str(life_cycle_state))


@dataclass(frozen=True)
class RunInfo:
    """What Databricks says about a run at one moment."""

    run_id: int
    url: str = "(its URL isn't known)"
    name: str = ""
    life_cycle_state: str | None = None
    result_state: str | None = None
    message: str = ""
    tasks: tuple[dict[str, Any], ...] = ()

    @property
    def state(self) -> str:
        """For example ``RUNNING`` or ``TERMINATED/FAILED``."""
        return "/".join(part for part in (self.life_cycle_state or "UNKNOWN", self.result_state) if part)

    @property
    def terminal(self) -> bool:
        """Whether nothing of the run is left."""
        return self.life_cycle_state in _TERMINAL

    @property
    def verdict(self) -> Waiting | Succeeded | Failed:
        """What that means."""
        return verdict(self.life_cycle_state, self.result_state, self.message)


@dataclass(frozen=True)
class TaskError:
    """What a task of a run said when it failed: its key, its error and its traceback."""

    task_key: str
    error: str
    trace: str


class DatabricksRunError(MlopsError):
    """A run failed, took too long, or can't be ended; the message names its URL.

    Attributes
    ----------
    run_id : int
    state : str
        For example ``TERMINATED/FAILED``.
    tasks : tuple of TaskError
        What the tasks that failed said.
    ended : bool
        Whether the run is over for certain.
    """

    def __init__(self, message: str, run: RunInfo, *, tasks: tuple[TaskError, ...] = (), ended: bool = False) -> None:
        super().__init__(message)
        self.run_id, self.url, self.state, self.tasks, self.ended = run.run_id, run.url, run.state, tasks, ended
