"""Runs of the Jobs API, watched so that none is forgotten, taken for a success that isn't, or alive twice.

Every request is repeated if it fails in a way that may pass (a lost connection, 429, 5xx), until a deadline.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlops_dagster.stack.databricks.retry import Log, one_line, retry
from mlops_dagster.stack.databricks.run_states import DatabricksRunError, Failed, RunInfo, Succeeded, TaskError, Waiting

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_REPEAT_CANCEL = 10.0
"""Seconds after which a cancel is repeated: it may have been ignored."""


def look(client: WorkspaceClient, run_id: int) -> RunInfo:
    """Ask for a run once. Not through the SDK's own types, to which a state that they don't know is None."""
    answer: Any = client.api_client.do("GET", "/api/2.2/jobs/runs/get", query={"run_id": run_id})
    return _info(answer)


def _info(answer: dict[str, Any]) -> RunInfo:
    state = answer.get("state") or {}
    details = (answer.get("status") or {}).get("termination_details") or {}
    messages = dict.fromkeys(text for text in (state.get("state_message"), details.get("message")) if text)
    return RunInfo(
        run_id=answer["run_id"],
        url=answer.get("run_page_url") or RunInfo.url,
        name=answer.get("run_name") or "",
        life_cycle_state=state.get("life_cycle_state"),
        result_state=state.get("result_state"),
        message=" ".join(messages),
        tasks=tuple(answer.get("tasks") or ()),
    )


# -------------------------------------------------------------------------------------------------------- submitting


def run_name(step: str, symbol: str, root_run_id: str) -> str:
    """Return the name under which a step is submitted; a repeated step has the same name as the one before."""
    return f"mlops_dagster {step} {symbol} {root_run_id}"


def idempotency_token(*parts: object) -> str:
    """Return a token of 64 characters that is the same for the same parts, and for no others.

    Examples
    --------
    >>> len(idempotency_token("a run's id", "trained_model", 0))
    64
    """
    return hashlib.sha256(repr([str(part) for part in parts]).encode()).hexdigest()


def submit(
    client: WorkspaceClient, log: Log, *, run_name: str, idempotency_token: str, give_up: float = 300, **arguments: Any
) -> int:
    """Submit a run exactly once, whatever happens to the answer, and return its id.

    Parameters
    ----------
    run_name : str
        See :func:`run_name`.
    idempotency_token : str
        See :func:`idempotency_token`. Databricks starts one run for it, however often it is submitted.
    give_up : float
        Seconds after which a request that keeps failing is given up.
    **arguments
        What `client.jobs.submit` takes.

    Raises
    ------
    DatabricksRunError
        If Databricks refuses it, or doesn't answer. A run that may have been made nevertheless is cancelled.
    """

    def made() -> int:
        answer: Any = client.jobs.submit(run_name=run_name, idempotency_token=idempotency_token, **arguments)
        return int(answer.response.run_id)

    def ask(give_up: float) -> int:
        return retry(made, f"submit {run_name!r}", RunInfo(0), log, give_up)

    try:
        return ask(give_up)
    except BaseException as error:
        if not isinstance(error, Exception) or (isinstance(error, DatabricksRunError) and not error.ended):
            # The request may have arrived, and only its answer not. To the same request with the same token, Databricks
            # answers with the run that is there.
            log(f"It isn't known whether Databricks has started {run_name!r}: asking again, to cancel the run.")
            end(client, ask(60), log)
        raise


def end_leftovers(client: WorkspaceClient, run_name: str, log: Log, *, patience: float = 300) -> list[int]:
    """End every live run of this name, for certain, so that the next one is the only one; return their ids.

    Raises
    ------
    DatabricksRunError
        If one of them can't be ended.
    """

    def live() -> list[RunInfo]:
        from databricks.sdk.service.jobs import RunType

        return [
            RunInfo(int(run.run_id), run.run_page_url or RunInfo.url)
            for run in client.jobs.list_runs(active_only=True, run_type=RunType.SUBMIT_RUN, limit=24)
            if run.run_name == run_name and run.run_id
        ]

    left = retry(live, f"look for live runs named {run_name!r}", RunInfo(0), log, patience)
    for run in left:
        log(f"Databricks run {run.run_id} of an earlier attempt is still alive ({run.url}): it is cancelled first.")
        end(client, run.run_id, log, patience=patience)
    return [run.run_id for run in left]


# ----------------------------------------------------------------------------------------------------------- waiting


def wait_for(
    client: WorkspaceClient,
    run_id: int,
    *,
    poll: float,
    deadline: float,
    log: Log,
    on_poll: Callable[[RunInfo], object] | None = None,
) -> RunInfo:
    """Wait until a run has succeeded.

    Parameters
    ----------
    poll : float
        Seconds between two questions.
    deadline : float
        Seconds from now after which to give up. The run isn't cancelled here, see :func:`ending`.
    log : callable
        Takes a line: the run's URL, each new state, and each request that has to be repeated.
    on_poll : callable, optional
        Told what Databricks says, each time.

    Raises
    ------
    DatabricksRunError
        If the run ends in any other way, or not until the deadline. It has the run's URL, state and message and, of
        each task that failed, the error and the traceback from the cluster.
    """
    until = time.monotonic() + deadline
    known = RunInfo(run_id)
    while True:
        seen = retry(
            lambda: look(client, run_id), f"ask for Databricks run {run_id}", known, log, until - time.monotonic(), poll
        )
        if known.life_cycle_state is None:
            log(f"Databricks run {run_id}: {seen.url}")
        if seen.state != known.state:
            log(f"Databricks run {run_id} is {seen.state}{f' ({seen.message})' if seen.message else ''}")
        found = seen.verdict
        if isinstance(found, Waiting) and found.unknown and seen.state != known.state:
            log(f"Databricks run {run_id} is {found.unknown}, a state that this program doesn't know: waiting on.")
        known = seen
        if on_poll is not None:
            on_poll(seen)
        if isinstance(found, Succeeded):
            return seen
        if isinstance(found, Failed):
            raise _failure(client, seen, found.reason)
        left = until - time.monotonic()
        if left <= 0:
            raise DatabricksRunError(
                f"Databricks run {run_id} is still {seen.state} after {deadline:g} seconds, the longest that the "
                f"deployment's databricks.timeout_seconds allows: {seen.url}",
                seen,
            )
        time.sleep(min(poll, left))


def _failure(client: WorkspaceClient, run: RunInfo, reason: str) -> DatabricksRunError:
    errors = tuple(_task_errors(client, run))
    text = f"Databricks run {run.run_id} failed ({run.state}): {reason}. {run.url}"
    for one in errors:
        if one.error or one.trace:
            text += f"\nTask {one.task_key}: {one.error}\n{one.trace[-4000:]}".rstrip()
    return DatabricksRunError(text, run, tasks=errors, ended=run.terminal)


def _task_errors(client: WorkspaceClient, run: RunInfo) -> Iterator[TaskError]:
    """Fetch what the tasks that failed said; what can't be fetched is left out, since the run has failed anyway."""
    for task in run.tasks or ({"run_id": run.run_id, "task_key": run.name},):
        if (task.get("state") or {}).get("result_state") == "SUCCESS":
            continue
        try:
            output: Any = client.api_client.do(
                "GET", "/api/2.2/jobs/runs/get-output", query={"run_id": task.get("run_id")}
            )
        except Exception as error:  # noqa: BLE001 - this must not hide why the run failed
            yield TaskError(str(task.get("task_key")), f"(its output can't be read: {one_line(error)})", "")
            continue
        yield TaskError(
            str(task.get("task_key")), _plain(output.get("error")), _plain(output.get("error_trace")).strip()
        )


def _plain(text: object) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", str(text or ""))


# ------------------------------------------------------------------------------------------------------------ ending


@contextmanager
def ending(client: WorkspaceClient, run_id: int, log: Log, *, poll: float = 1, patience: float = 300) -> Iterator[None]:
    """Leave no live run behind: on any exception, an interrupt included, end it for certain before going on.

    Raises
    ------
    DatabricksRunError
        If the run can't be ended; it names the run's URL. Otherwise what was raised inside.
    """
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, DatabricksRunError) and error.ended):
            log(f"Databricks run {run_id} is cancelled, because of {type(error).__name__}.")
            end(client, run_id, log, poll=poll, patience=patience)
        raise


def end(client: WorkspaceClient, run_id: int, log: Log, *, poll: float = 1, patience: float = 300) -> RunInfo:
    """Cancel a run, again and again if need be, until Databricks says that it is over.

    Parameters
    ----------
    client, run_id, log
        As for :func:`wait_for`.
    poll : float
        Seconds between two questions.
    patience : float
        Seconds after which to give up.

    Raises
    ------
    DatabricksRunError
        If it isn't over by then.
    """
    until, next_cancel = time.monotonic() + patience, 0.0
    run, problem = RunInfo(run_id), ""
    try:
        while time.monotonic() < until:
            try:
                if time.monotonic() >= next_cancel:
                    client.api_client.do("POST", "/api/2.2/jobs/runs/cancel", body={"run_id": run_id})
                    next_cancel = time.monotonic() + _REPEAT_CANCEL
                run, problem = look(client, run_id), ""
            except Exception as error:  # noqa: BLE001 - whatever it is, the run is not known to be over
                if "does not exist" in str(error) and type(error).__module__.startswith("databricks."):
                    log(f"Databricks run {run_id} doesn't exist any more.")
                    return run
                if one_line(error) != problem:
                    log(f"Databricks run {run_id} can't be cancelled yet: {one_line(error)}")
                problem = one_line(error)
            if run.terminal:
                log(f"Databricks run {run_id} is over ({run.state}).")
                return run
            time.sleep(poll)
    except BaseException:
        log(f"Databricks run {run_id} was asked to end, but it isn't known whether it did. Look at {run.url}")
        raise
    raise DatabricksRunError(
        f"Databricks run {run_id} is NOT over {patience:g} seconds after it was first cancelled: it is {run.state}"
        f"{f' ({problem})' if problem else ''}. Stop it by hand: {run.url}",
        run,
    )
