"""Runs over HTTP against the stand-in workspace: submitted once, waited for, ended for certain, whatever goes wrong."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient

from mlops_dagster.stack.databricks import runs
from mlops_dagster.stack.databricks.run_states import DatabricksRunError, RunInfo
from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.workspace import Workspace

pytestmark = pytest.mark.xdist_group("stack_databricks")

Task = Callable[[str], dict[str, Any]]
SLEEP = "import time\nprint('here', flush=True)\ntime.sleep(600)"
numbers = itertools.count()


def start(client: WorkspaceClient, arguments: dict[str, Any], log: Any = print, name: str = "") -> int:
    name = name or f"run {next(numbers)}"
    token = runs.idempotency_token(name, next(numbers))
    return runs.submit(client, log, run_name=name, idempotency_token=token, **arguments)


def wait(client: WorkspaceClient, run_id: int, log: Any = print, deadline: float = 240, **more: Any) -> RunInfo:
    return runs.wait_for(client, run_id, poll=0.1, deadline=deadline, log=log, **more)


def state(ws: Workspace, run_id: int) -> tuple[str, str | None]:
    found = ws.run(run_id)["state"]
    return found["life_cycle_state"], found.get("result_state")


# ----------------------------------------------------------------------------------------------------------- waiting


def test_a_success(client: WorkspaceClient, task: Task) -> None:
    lines: list[str] = []
    polls: list[str | None] = []
    run_id = start(client, task("print('done')"))
    run = wait(client, run_id, lines.append, on_poll=lambda seen: polls.append(seen.life_cycle_state))
    assert (run.run_id, run.result_state) == (run_id, "SUCCESS")
    assert lines[0] == f"Databricks run {run_id}: {run.url}"
    assert any(f"is {run.state}" in line for line in lines)
    assert polls[-1] == run.life_cycle_state


def test_a_failure_brings_the_clusters_own_traceback(client: WorkspaceClient, task: Task) -> None:
    run_id = start(client, task("def inner():\n    raise ValueError('boom')\ninner()"))
    with pytest.raises(DatabricksRunError) as caught:
        wait(client, run_id)
    error = caught.value
    assert error.run_id == run_id
    assert str(run_id) in error.url
    assert error.url in str(error)
    assert "the task failed" in str(error)
    assert error.tasks[0].error == "ValueError: boom"
    assert "in inner" in error.tasks[0].trace
    assert "in inner" in str(error)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "skipped"}, "Databricks skipped it"),
        ({"kind": "skipped", "result": "MAXIMUM_CONCURRENT_RUNS_REACHED"}, "Databricks skipped it"),
        ({"kind": "internal_error"}, "internal error"),
        ({"kind": "result", "result": "TIMEDOUT"}, "longer than its timeout"),
        ({"kind": "result", "result": "CANCELED"}, "somebody cancelled it"),
        ({"kind": "result", "result": "SUCCESS_WITH_FAILURES"}, "some of its tasks failed"),
        ({"kind": "result", "result": "A_NEW_ONE"}, "A_NEW_ONE"),
        ({"kind": "kill", "seconds": 0.2}, "the task failed"),
    ],
)
def test_no_other_end_is_a_success(
    ws: Workspace, client: WorkspaceClient, task: Task, fault: dict[str, Any], said: str
) -> None:
    ws.fault(run_name="doomed", **fault)
    run_id = start(client, task(SLEEP if fault["kind"] == "kill" else ""), name="doomed")
    with pytest.raises(DatabricksRunError, match=said):
        wait(client, run_id)


def test_terminating_without_result_is_waited_for(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    ws.fault(kind="terminating", run_name="slow to go", seconds=1)
    lines: list[str] = []
    run_id = start(client, task(""), name="slow to go")
    assert wait(client, run_id, lines.append).result_state == "SUCCESS"
    assert any("is TERMINATING" in line for line in lines)


def test_the_deadline(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    ws.fault(kind="terminating", run_name="never gone")
    run_id = start(client, task(""), name="never gone")
    with pytest.raises(DatabricksRunError, match=r"still \w+ after 2 seconds.*timeout_seconds") as caught:
        wait(client, run_id, deadline=2)
    assert not caught.value.ended
    assert caught.value.url in str(caught.value)


@pytest.mark.parametrize(("status", "code"), [(503, "TEMPORARILY_UNAVAILABLE"), (500, "INTERNAL_ERROR"), (502, "X")])
def test_a_storm_while_polling_fails_nothing(
    ws: Workspace, client: WorkspaceClient, task: Task, status: int, code: str
) -> None:
    run_id = start(client, task(""))
    ws.fault(kind="status", method="GET", path="*/runs/get", status=status, error_code=code, times=2, retry_after=0)
    ws.fault(kind="lost_answer", method="GET", path="*/runs/get")
    assert wait(client, run_id).result_state == "SUCCESS"
    assert [fault["used"] for fault in ws.faults()] == [2, 1]


def test_too_many_requests_while_polling(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    run_id = start(client, task(""))
    limit = {"status": 429, "error_code": "REQUEST_LIMIT_EXCEEDED", "retry_after": 0}
    ws.fault(kind="status", method="GET", path="*/runs/get", times=3, **limit)
    assert wait(client, run_id).result_state == "SUCCESS"


def test_a_storm_has_an_end_at_the_deadline(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    run_id = start(client, task(SLEEP))
    ws.fault(kind="status", path="*/runs/get", status=500, error_code="INTERNAL_ERROR", times=10**6)
    with pytest.raises(DatabricksRunError, match=f"could not ask for Databricks run {run_id}"):
        wait(client, run_id, deadline=1)


def test_a_refusal_is_final(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    run_id = start(client, task(SLEEP))
    ws.fault(kind="status", path="*/runs/get", status=403, error_code="PERMISSION_DENIED", message="not yours")
    with pytest.raises(DatabricksRunError, match=r"refused to ask .* not yours") as caught:
        wait(client, run_id)
    assert not caught.value.ended


def test_output_that_cant_be_read_doesnt_hide_the_failure(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    run_id = start(client, task("1/0"))
    ws.fault(kind="status", path="*/runs/get-output", status=403, error_code="PERMISSION_DENIED", message="not yours")
    with pytest.raises(DatabricksRunError, match=r"the task failed[\s\S]*its output can't be read: not yours"):
        wait(client, run_id)


# -------------------------------------------------------------------------------------------------------- submitting


def test_a_lost_answer_makes_no_second_run(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    ws.fault(kind="lost_answer", method="POST", path="*/runs/submit")
    run_id = start(client, task(""), name="only one")
    wait(client, run_id)
    assert [run["run_id"] for run in ws.runs() if run["run_name"] == "only one"] == [run_id]
    assert len([body for body in ws.submitted() if body["run_name"] == "only one"]) == 2


def test_a_servers_own_trouble_makes_no_second_run(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    lines: list[str] = []
    ws.fault(kind="status", path="*/runs/submit", status=500, error_code="INTERNAL_ERROR", times=1)
    wait(client, start(client, task(""), lines.append, name="in the end"))
    assert len([run for run in ws.runs() if run["run_name"] == "in the end"]) == 1
    assert any("trying again" in line for line in lines)


def test_a_bad_request_is_refused_at_once(ws: Workspace, client: WorkspaceClient) -> None:
    with pytest.raises(DatabricksRunError, match="Databricks refused to submit 'empty'") as caught:
        start(client, {"tasks": []}, name="empty")
    assert caught.value.ended
    assert not [run for run in ws.runs() if run["run_name"] == "empty"]


def test_an_interrupt_while_submitting_leaves_no_run(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    # The server has made the run and is slow to say so; then somebody presses Ctrl-C.
    ws.fault(kind="delay", method="POST", path="*/runs/submit", seconds=3)

    def interrupt() -> None:
        eventually(lambda: ws.faults()[0]["used"])
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        start(client, task(SLEEP), name="interrupted")
    found = [run["state"] for run in ws.runs() if run["run_name"] == "interrupted"]
    assert [one["life_cycle_state"] for one in found] == ["TERMINATED"]


def test_tokens() -> None:
    assert runs.idempotency_token("a", "b", 1) == runs.idempotency_token("a", "b", "1")
    assert runs.idempotency_token("ab", "c") != runs.idempotency_token("a", "bc")
    assert len(runs.idempotency_token("x" * 1000)) == 64


def test_names() -> None:
    assert runs.run_name("prices", "GSPC", "root") == "mlops_dagster prices GSPC root"


# ------------------------------------------------------------------------------------------------------------ ending


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, DatabricksRunError])
def test_whatever_ends_the_wait_ends_the_run(
    ws: Workspace, client: WorkspaceClient, task: Task, error: type[BaseException]
) -> None:
    run_id = start(client, task(SLEEP))
    raised = error("deadline", RunInfo(run_id)) if error is DatabricksRunError else error()
    eventually(lambda: "here" in ws.stdout(run_id))
    with pytest.raises(error), runs.ending(client, run_id, print, poll=0.1):
        raise raised
    assert state(ws, run_id) == ("TERMINATED", "CANCELED")
    assert not ws.live_processes()


def test_ctrl_c_while_waiting_ends_the_run(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    run_id = start(client, task(SLEEP))

    def interrupt() -> None:
        eventually(lambda: "here" in ws.stdout(run_id))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), runs.ending(client, run_id, print, poll=0.1):
        wait(client, run_id)
    assert state(ws, run_id) == ("TERMINATED", "CANCELED")


def test_a_run_that_failed_isnt_cancelled(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    before = len(ws.requests("/runs/cancel"))
    run_id = start(client, task("1/0"))
    eventually(lambda: state(ws, run_id)[0] == "TERMINATED")
    with pytest.raises(DatabricksRunError), runs.ending(client, run_id, print):
        wait(client, run_id)
    assert len(ws.requests("/runs/cancel")) == before


def test_a_cancel_that_is_ignored_is_repeated(
    ws: Workspace, client: WorkspaceClient, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_REPEAT_CANCEL", 0.5)
    ws.fault(kind="cancel_ignored", run_name="stubborn", seconds=2)
    before = len(ws.requests("/runs/cancel"))
    run_id = start(client, task(SLEEP), name="stubborn")
    eventually(lambda: "here" in ws.stdout(run_id))
    assert runs.end(client, run_id, print, poll=0.1).terminal
    assert len(ws.requests("/runs/cancel")) > before + 1


def test_a_run_that_cant_be_ended_is_named_loudly(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    ws.fault(kind="cancel_ignored", run_name="immortal")
    run_id = start(client, task("import time; time.sleep(20)"), name="immortal")
    with pytest.raises(DatabricksRunError, match=f"{run_id} is NOT over 2 seconds") as caught:
        runs.end(client, run_id, print, poll=0.1, patience=2)
    assert caught.value.url in str(caught.value)
    assert str(run_id) in caught.value.url


def test_trouble_while_cancelling_is_outlived(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    run_id = start(client, task(SLEEP))
    ws.fault(kind="status", path="*/runs/cancel", status=500, error_code="INTERNAL_ERROR", times=2)
    ws.fault(kind="status", path="*/runs/get", status=500, error_code="INTERNAL_ERROR", times=2)
    lines: list[str] = []
    assert runs.end(client, run_id, lines.append, poll=0.1).terminal
    assert any("can't be cancelled yet" in line for line in lines)


def test_a_run_that_is_gone_is_over(client: WorkspaceClient) -> None:
    lines: list[str] = []
    runs.end(client, 987654321, lines.append, poll=0.1, patience=5)
    assert lines == ["Databricks run 987654321 doesn't exist any more."]


# -------------------------------------------------------------------------------------------------------- leftovers


def test_leftovers_of_the_same_name_are_ended_and_no_others(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    name = runs.run_name("prices", "GSPC", "0a1b")
    mine = [start(client, task(SLEEP), name=name) for _ in range(2)]
    other = start(client, task(SLEEP), name=runs.run_name("prices", "IXIC", "0a1b"))
    lines: list[str] = []
    assert sorted(runs.end_leftovers(client, name, lines.append)) == mine
    assert [state(ws, run_id)[0] for run_id in mine] == ["TERMINATED", "TERMINATED"]
    assert state(ws, other)[0] in ("PENDING", "RUNNING")
    assert all(re.search(rf"{run_id} of an earlier attempt", " ".join(lines)) for run_id in mine)
    assert runs.end_leftovers(client, name, print) == []


def test_leftovers_are_found_among_many(ws: Workspace, client: WorkspaceClient, task: Task) -> None:
    ws.fault(kind="pending", run_name="crowd*", times=30)  # no cluster, so no process either
    wanted = start(client, task(""), name="crowd: mine")
    for number in range(29):
        start(client, task(""), name=f"crowd {number}")
    assert runs.end_leftovers(client, "crowd: mine", print) == [wanted]
