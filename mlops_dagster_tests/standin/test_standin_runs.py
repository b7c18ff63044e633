"""Runs: submitted, polled, cancelled, listed, refused; what a task's process is and isn't given."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from databricks.sdk.errors import DatabricksError, ResourceDoesNotExist
from databricks.sdk.service import jobs

from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.workspace import Workspace
from mlops_dagster_tests.standin.submitting import CLUSTER, ENVIRONMENT, NEW, states, submit

pytestmark = pytest.mark.xdist_group("standin_runs")
Body = Callable[..., dict[str, Any]]
SLEEP = "import time\nprint('here', flush=True)\ntime.sleep(600)"


def test_the_sdk_submits_and_waits(ws: Workspace, body: Body) -> None:
    client = ws.client()
    task = jobs.SubmitTask.from_dict(body("import sys\nprint('hello', *sys.argv[1:])", "one", "--two=2")["tasks"][0])
    run = client.jobs.submit_and_wait(run_name="greeting", tasks=[task])
    assert run.state.result_state == jobs.RunResultState.SUCCESS
    assert run.tasks[0].cluster_instance.cluster_id == CLUSTER
    output = client.jobs.get_run_output(run.tasks[0].run_id)
    assert (output.logs, output.error) == ("hello one --two=2\n", None)


def test_a_failure_brings_its_own_traceback(ws: Workspace, body: Body) -> None:
    run = ws.ended(submit(ws, body("def inner():\n    raise ValueError('boom')\ninner()")))
    assert states(run) == ("TERMINATED", "FAILED")
    assert "Workload failed, see run output" in run["state"]["state_message"]
    output = ws.client().jobs.get_run_output(run["tasks"][0]["run_id"])
    assert output.error == "ValueError: boom"
    assert "in inner" in output.error_trace
    assert "in inner" in ws.stderr(run["run_id"])


@pytest.mark.parametrize(("code", "result"), [("0", "SUCCESS"), ("", "SUCCESS"), ("3", "FAILED"), ("'why'", "FAILED")])
def test_exit_codes(ws: Workspace, body: Body, code: str, result: str) -> None:
    assert states(ws.ended(submit(ws, body(f"import sys\nsys.exit({code})")))) == ("TERMINATED", result)


def test_a_file_that_is_not_there(ws: Workspace, body: Body) -> None:
    wanted = body("")
    wanted["tasks"][0]["spark_python_task"]["python_file"] = "dbfs:/none.py"
    run = ws.ended(submit(ws, wanted))
    assert run["state"]["result_state"] == "FAILED"
    assert "Cannot read the python file dbfs:/none.py" in run["state"]["state_message"]


def test_cancelling_ends_every_process(ws: Workspace, body: Body) -> None:
    child = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "deaf = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'\n"
        "subprocess.Popen([sys.executable, '-c', deaf], start_new_session=True)\n" + SLEEP
    )
    run_id = submit(ws, body(child))
    eventually(lambda: "here" in ws.stdout(run_id))
    assert len(ws.live_processes()) >= 2
    ws.client().jobs.cancel_run(run_id)
    run = ws.ended(run_id)
    assert states(run) == ("TERMINATED", "CANCELED")
    assert run["tasks"][0]["state"]["result_state"] == "CANCELED"
    assert not ws.live_processes()
    ws.client().jobs.cancel_run(run_id)  # once more does no harm


@pytest.mark.parametrize("whose", ["run", "task"])
def test_a_timeout(ws: Workspace, body: Body, whose: str) -> None:
    limit = {"timeout_seconds": 1}
    run = ws.ended(submit(ws, body(SLEEP, run=limit) if whose == "run" else body(SLEEP, **limit)))
    assert states(run) == ("TERMINATED", "TIMEDOUT")
    assert not ws.live_processes()


def test_an_idempotency_token_gives_the_same_run(ws: Workspace, body: Body) -> None:
    wanted = body("print('once')", run={"idempotency_token": "only-once"})
    first, again = submit(ws, wanted), submit(ws, wanted)
    assert first == again
    ws.ended(first)
    assert submit(ws, wanted) == first


def test_retries_are_attempts(ws: Workspace, body: Body) -> None:
    script = "import os\nn = len(open('/dbfs/tries', 'a+').read())\nopen('/dbfs/tries', 'a').write('x')\n"
    script += "seen = len(open('/dbfs/tries').read())\nassert seen == 3, seen"
    run = ws.ended(submit(ws, body(script, max_retries=2)))
    assert states(run) == ("TERMINATED", "SUCCESS")
    tried = [(task["attempt_number"], task["state"]["result_state"]) for task in run["tasks"]]
    assert tried == [(0, "FAILED"), (1, "FAILED"), (2, "SUCCESS")]


def test_tasks_wait_for_each_other(ws: Workspace, body: Body) -> None:
    first = body("open('/dbfs/order', 'w').write('first')")["tasks"][0]
    second = body("assert open('/dbfs/order').read() == 'first'")["tasks"][0]
    bad = body("raise SystemExit(1)")["tasks"][0]
    tasks = [
        {**second, "task_key": "second", "depends_on": [{"task_key": "main"}]},
        first,
        {**bad, "task_key": "bad", "depends_on": [{"task_key": "second"}]},
        {**first, "task_key": "never", "depends_on": [{"task_key": "bad"}]},
    ]
    run = ws.ended(submit(ws, {"tasks": tasks}))
    results = {task["task_key"]: task["state"]["result_state"] for task in run["tasks"]}
    assert results == {"main": "SUCCESS", "second": "SUCCESS", "bad": "FAILED", "never": "UPSTREAM_FAILED"}
    assert run["state"]["result_state"] == "FAILED"
    with pytest.raises(DatabricksError, match="multiple tasks is not supported"):
        ws.client().jobs.get_run_output(run["run_id"])


def test_runs_are_listed_newest_first(ws: Workspace, body: Body) -> None:
    client = ws.client()
    ended = [submit(ws, body("print(1)", run={"run_name": f"listed {number}"})) for number in range(3)]
    for run_id in ended:
        ws.ended(run_id)
    active = submit(ws, body(SLEEP))
    listed = [run.run_id for run in client.jobs.list_runs(limit=2)]
    assert listed[:4] == [active, *reversed(ended)]
    assert [run.run_id for run in client.jobs.list_runs(active_only=True)] == [active]
    assert active not in [run.run_id for run in client.jobs.list_runs(completed_only=True)]
    assert not list(client.jobs.list_runs(run_type=jobs.RunType.JOB_RUN))
    with pytest.raises(DatabricksError, match="is active"):
        client.jobs.delete_run(active)
    client.jobs.cancel_all_runs(job_id=ws.run(active)["job_id"])
    ws.ended(active)
    client.jobs.delete_run(active)
    with pytest.raises(ResourceDoesNotExist):
        client.jobs.get_run(active)


def test_a_run_id_may_come_in_a_json_body(ws: Workspace, body: Body) -> None:
    run_id = submit(ws, body("print(1)"))
    assert ws.call("GET", "/api/2.1/jobs/runs/get", {"run_id": run_id})["run_id"] == run_id
    ws.ended(run_id)


FILE = {"spark_python_task": {"python_file": "dbfs:/x.py"}}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({}, "tasks is empty"),
        ({"tasks": []}, "tasks is empty"),
        ({"unheard_of": 1, "tasks": [{"task_key": "a"}]}, "RunsSubmit has no unheard_of"),
        ({"tasks": [{"task_key": "a", "tags": {}, **FILE, "new_cluster": NEW}]}, "Task a has no tags"),
        ({"tasks": [{"task_key": "a b", **FILE, "new_cluster": NEW}]}, "task_key must be"),
        ({"tasks": [{"task_key": "a", **FILE, "new_cluster": NEW}] * 2}, "must be unique"),
        ({"tasks": [{"task_key": "a", "new_cluster": NEW}]}, "exactly one type of task, got none"),
        (
            {"tasks": [{"task_key": "a", **FILE, "notebook_task": {"notebook_path": "/n"}, "new_cluster": NEW}]},
            "exactly one type of task, got notebook_task, spark_python_task",
        ),
        ({"tasks": [{"task_key": "a", "notebook_task": {}, "new_cluster": NEW}]}, "doesn't run a notebook_task"),
        ({"tasks": [{"task_key": "a", "spark_python_task": {}, "new_cluster": NEW}]}, "needs python_file"),
        (
            {"tasks": [{"task_key": "a", "python_wheel_task": {"package_name": "p"}, "new_cluster": NEW}]},
            "needs entry_point",
        ),
        (
            {
                "tasks": [
                    {"task_key": "a", "spark_python_task": {"python_file": "f", "parameters": [1]}, "new_cluster": NEW}
                ]
            },
            "must be a string, got 1",
        ),
        ({"tasks": [{"task_key": "a", **FILE}]}, "exactly one of new_cluster"),
        ({"tasks": [{"task_key": "a", **FILE, "new_cluster": NEW, "existing_cluster_id": CLUSTER}]}, "exactly one of"),
        ({"tasks": [{"task_key": "a", **FILE, "existing_cluster_id": "1-2-3"}]}, "Cluster 1-2-3 does not exist"),
        ({"tasks": [{"task_key": "a", **FILE, "new_cluster": {**NEW, "typo": 1}}]}, "new_cluster has no typo"),
        ({"tasks": [{"task_key": "a", **FILE, "new_cluster": {"num_workers": 1}}]}, "needs spark_version"),
        (
            {"tasks": [{"task_key": "a", **FILE, "new_cluster": {**NEW, "spark_env_vars": {"N": 1}}}]},
            "spark_env_vars.N must be a string",
        ),
        ({"tasks": [{"task_key": "a", **FILE, "environment_key": "e"}]}, "names the environment 'e'"),
        (
            {"tasks": [{"task_key": "a", **FILE, "environment_key": "e"}], "environments": [{"environment_key": "e"}]},
            "needs environment_key and spec.environment_version",
        ),
        (
            {
                "tasks": [{"task_key": "a", **FILE, "environment_key": "e", "libraries": [{"whl": "dbfs:/w.whl"}]}],
                "environments": [ENVIRONMENT],
            },
            "Libraries field is not supported for serverless task",
        ),
        (
            {"tasks": [{"task_key": "a", **FILE, "new_cluster": NEW, "depends_on": [{"task_key": "b"}]}]},
            "depends on 'b'",
        ),
        ({"tasks": [{"task_key": "a", **FILE, "new_cluster": NEW, "timeout_seconds": "5"}]}, "timeout_seconds must be"),
    ],
)
def test_bodies_that_are_refused(ws: Workspace, wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ws.call("POST", "/api/2.2/jobs/runs/submit", wrong)
    assert refused.value.code == 400
    assert why in json.loads(refused.value.read())["message"]


def test_what_does_not_exist(ws: Workspace) -> None:
    client = ws.client()
    for call in (lambda: client.jobs.get_run(1), lambda: client.jobs.get(1), lambda: client.clusters.get("none")):
        with pytest.raises(ResourceDoesNotExist):
            call()
    with pytest.raises(DatabricksError, match="No API found"):
        client.api_client.do("GET", "/api/2.0/none")


def test_logs_go_where_the_cluster_says(ws: Workspace, body: Body) -> None:
    destination = {"cluster_log_conf": {"dbfs": {"destination": "dbfs:/logs"}}}
    run = ws.ended(submit(ws, body("print('logged')", new_cluster={**NEW, **destination})))
    cluster = run["tasks"][0]["cluster_instance"]["cluster_id"]
    assert (ws.dbfs / "logs" / cluster / "driver" / "stdout").read_text() == "logged\n"
    assert ws.client().clusters.get(cluster).cluster_log_conf.dbfs.destination == "dbfs:/logs"


def test_the_page_of_a_run(ws: Workspace, body: Body) -> None:
    import urllib.request

    run = ws.ended(submit(ws, body("print('<b>printed</b>')", "par&meter", run={"run_name": "a <name>"})))
    with urllib.request.urlopen(run["run_page_url"]) as answer:  # no token: it is opened in a browser
        page = answer.read().decode()
    for text in ("TERMINATED (SUCCESS)", "&lt;b&gt;printed&lt;/b&gt;", "par&amp;meter", "a &lt;name&gt;", "no proof"):
        assert text in page
    with urllib.request.urlopen(ws.url) as answer:
        assert run["run_page_url"] in answer.read().decode()
