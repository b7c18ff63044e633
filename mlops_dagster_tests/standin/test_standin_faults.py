"""Every fault does what it says, as often as it says, and no longer."""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from databricks.sdk.errors import DatabricksError

from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.workspace import Workspace
from mlops_dagster_tests.standin.submitting import states, submit

pytestmark = pytest.mark.xdist_group("standin_faults")
Body = Callable[..., dict[str, Any]]
SLEEP = "import time\nprint('here', flush=True)\ntime.sleep(600)"
ME = "/api/2.0/preview/scim/v2/Me"


@pytest.fixture(autouse=True)
def _no_fault_is_left(ws: Workspace) -> Iterator[None]:
    ws.clear_faults()
    yield
    ws.clear_faults()


@pytest.mark.parametrize("status", [500, 403, 503, 429])
def test_a_status_for_a_number_of_requests(ws: Workspace, status: int) -> None:
    ws.fault("status", method="GET", path="*/Me", status=status, error_code="WHY", retry_after=7, times=2)
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ws.call("GET", ME)
        assert (refused.value.code, refused.value.headers["Retry-After"]) == (status, "7")
    assert ws.call("GET", ME)["userName"]
    assert [each["used"] for each in ws.faults()] == [2]
    assert [each["fault"] for each in ws.requests("/Me")[-3:]] == ["status", "status", None]


def test_the_sdk_tries_again_after_429(ws: Workspace) -> None:
    ws.fault("status", path="*/Me", status=429, error_code="REQUEST_LIMIT_EXCEEDED", retry_after=1)
    assert ws.client().current_user.me().user_name
    assert [each["status"] for each in ws.requests("/Me")[-2:]] == [429, 200]


def test_a_refused_request_is_not_carried_out(ws: Workspace, body: Body) -> None:
    before = len(ws.runs())
    ws.fault("status", method="POST", path="*/runs/submit", status=500)
    with pytest.raises(urllib.error.HTTPError):
        submit(ws, body("print(1)"))
    assert len(ws.runs()) == before


def test_a_delay(ws: Workspace) -> None:
    ws.fault("delay", path="*/Me", seconds=0.5)
    begun = time.monotonic()
    ws.call("GET", ME)
    assert time.monotonic() - begun >= 0.5


def test_a_lost_answer_to_a_request_that_was_carried_out(ws: Workspace, body: Body) -> None:
    before = len(ws.runs())
    ws.fault("lost_answer", path="*/runs/submit")
    with pytest.raises(http.client.RemoteDisconnected):
        submit(ws, body("print('lost')"))
    assert len(ws.runs()) == before + 1
    assert states(ws.ended(ws.runs()[-1]["run_id"])) == ("TERMINATED", "SUCCESS")


def test_a_truncated_file(ws: Workspace) -> None:
    client = ws.client()
    (ws.dbfs / "events").write_bytes(b"0123456789")
    client.files.upload("/Volumes/a/b/c/7.json", io.BytesIO(b"0123456789"))
    ws.fault("truncate", path="*/events", size=4)
    ws.fault("truncate", path="*.json", size=0)
    assert client.dbfs.read("/events").bytes_read == 4
    assert client.dbfs.read("/events").bytes_read == 10
    assert client.files.download("/Volumes/a/b/c/7.json").contents.read() == b""
    assert client.files.download("/Volumes/a/b/c/7.json").contents.read() == b"0123456789"


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("skipped", {}, ("SKIPPED", None)),
        (
            "skipped",
            {"result": "MAXIMUM_CONCURRENT_RUNS_REACHED"},
            ("SKIPPED", "MAXIMUM_CONCURRENT_RUNS_REACHED"),
        ),
        ("internal_error", {"message": "cloud"}, ("INTERNAL_ERROR", "FAILED")),
        ("result", {"result": "SUCCESS_WITH_FAILURES"}, ("TERMINATED", "SUCCESS_WITH_FAILURES")),
        ("result", {"result": "TIMEDOUT"}, ("TERMINATED", "TIMEDOUT")),
        ("result", {"result": "MAXIMUM_CONCURRENT_RUNS_REACHED"}, ("TERMINATED", "MAXIMUM_CONCURRENT_RUNS_REACHED")),
    ],
)
def test_how_a_run_may_end(ws: Workspace, body: Body, kind: str, given: Any, expected: tuple[str, str | None]) -> None:
    ws.fault(kind, run_name="wrong*", **given)
    run = ws.ended(submit(ws, body("print('ran')", run={"run_name": "wrong one"})))
    assert states(run) == expected
    assert states(run["tasks"][0]) == expected
    assert ("ran" in ws.stdout(run["run_id"])) == (kind == "result")
    ws.client().jobs.get_run(run["run_id"])  # the SDK can read it
    assert states(ws.ended(submit(ws, body("print(1)", run={"run_name": "wrong two"})))) == ("TERMINATED", "SUCCESS")


def test_terminating_without_a_result(ws: Workspace, body: Body) -> None:
    ws.fault("terminating", seconds=3)
    run_id = submit(ws, body("print(1)"))
    eventually(lambda: states(ws.run(run_id)) == ("TERMINATING", None), pause=0.02)
    assert states(ws.ended(run_id)) == ("TERMINATED", "SUCCESS")


def test_a_cluster_that_never_comes(ws: Workspace, body: Body) -> None:
    ws.fault("pending")
    run_id = submit(ws, body("print(1)"))
    time.sleep(0.5)
    run = ws.run(run_id)
    assert (states(run), "cluster_instance" in run["tasks"][0]) == (("PENDING", None), False)
    ws.client().jobs.cancel_run(run_id)
    assert states(ws.ended(run_id)) == ("TERMINATED", "CANCELED")
    assert ws.stdout(run_id) == ""


def test_a_cancellation_that_is_ignored(ws: Workspace, body: Body) -> None:
    ws.fault("cancel_ignored", seconds=1)
    run_id = submit(ws, body(SLEEP))
    eventually(lambda: "here" in ws.stdout(run_id))
    begun = time.monotonic()
    ws.client().jobs.cancel_run(run_id)
    assert states(ws.ended(run_id)) == ("TERMINATED", "CANCELED")
    assert time.monotonic() - begun >= 1


def test_a_process_that_is_killed(ws: Workspace, body: Body) -> None:
    ws.fault("kill", seconds=0)
    run = ws.ended(submit(ws, body(SLEEP)))
    assert states(run) == ("TERMINATED", "FAILED")
    assert "exit code 137 (SIGKILL)" in run["state"]["state_message"]


def test_a_fault_that_does_not_exist(ws: Workspace) -> None:
    for wrong in ({"kind": "typo"}, {"kind": "status", "typo": 1}, {"kind": "status", "used": 1}):
        with pytest.raises(urllib.error.HTTPError):
            ws.call("POST", "/_standin/faults", wrong)
    with pytest.raises(DatabricksError):
        ws.client().api_client.do("GET", "/_standin/none")
