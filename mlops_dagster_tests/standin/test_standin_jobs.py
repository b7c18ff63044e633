"""Jobs, as an Asset Bundle makes them: kept, changed, and run with parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from databricks.sdk.errors import DatabricksError, ResourceDoesNotExist
from databricks.sdk.service import jobs

from mlops_dagster_tests.contracts.workspace import Workspace
from mlops_dagster_tests.standin.submitting import NEW, states

pytestmark = pytest.mark.xdist_group("standin_jobs")
Body = Callable[..., dict[str, Any]]
PRINT = "import sys\nprint(sys.argv[1:])"
SLEEP = "import time\ntime.sleep(600)"


def settings(body: dict[str, Any], **given: Any) -> dict[str, Any]:
    task = dict(body["tasks"][0])
    task.pop("existing_cluster_id")
    clusters = [{"job_cluster_key": "shared", "new_cluster": NEW}]
    return {"name": "a job", "job_clusters": clusters, "tasks": [{**task, "job_cluster_key": "shared"}], **given}


def test_a_job_runs_with_its_parameters(ws: Workspace, body: Body) -> None:
    client = ws.client()
    wanted = body(
        PRINT, "--symbol={{job.parameters.symbol}}", "{{job.parameters.year}}", "{{task.name}}", "{{unknown}}"
    )
    parameters = [{"name": "symbol", "default": "GSPC"}, {"name": "year", "default": "2020"}]
    job_id = ws.call("POST", "/api/2.2/jobs/create", settings(wanted, parameters=parameters))["job_id"]
    run = client.jobs.run_now_and_wait(job_id, job_parameters={"symbol": "IXIC"})
    assert run.state.result_state == jobs.RunResultState.SUCCESS
    assert ws.stdout(run.run_id) == "['--symbol=IXIC', '2020', 'main', '{{unknown}}']\n"
    assert {each.name: each.value for each in run.job_parameters} == {"symbol": "IXIC", "year": "2020"}
    assert run.run_type == jobs.RunType.JOB_RUN
    with pytest.raises(DatabricksError, match="has no parameter typo"):
        client.jobs.run_now(job_id, job_parameters={"typo": "x"})
    assert [each.run_id for each in client.jobs.list_runs(job_id=job_id)] == [run.run_id]


def test_jobs_are_kept_and_changed(ws: Workspace, body: Body) -> None:
    client = ws.client()
    job_id = ws.call("POST", "/api/2.2/jobs/create", settings(body(PRINT, "old"), name="kept"))["job_id"]
    assert [job.job_id for job in client.jobs.list(name="KEPT")] == [job_id]
    ws.call(
        "POST", "/api/2.2/jobs/reset", {"job_id": job_id, "new_settings": settings(body(PRINT, "new"), name="other")}
    )
    assert client.jobs.get(job_id).settings.name == "other"
    run = client.jobs.run_now_and_wait(job_id)
    assert ws.stdout(run.run_id) == "['new']\n"
    run = client.jobs.run_now_and_wait(job_id, python_params=["given"])
    assert ws.stdout(run.run_id) == "['given']\n"
    client.jobs.delete(job_id)
    with pytest.raises(ResourceDoesNotExist):
        client.jobs.get(job_id)
    with pytest.raises(DatabricksError, match="names the job cluster 'shared'"):
        client.api_client.do("POST", "/api/2.2/jobs/create", body=settings(body(PRINT), job_clusters=[]))


@pytest.mark.parametrize("queued", [True, False])
def test_one_run_at_a_time(ws: Workspace, body: Body, queued: bool) -> None:
    client = ws.client()
    wanted = settings(body(SLEEP), queue={"enabled": queued})
    job_id = ws.call("POST", "/api/2.2/jobs/create", wanted)["job_id"]
    first = client.jobs.run_now(job_id).bind()["run_id"]
    second = client.jobs.run_now(job_id).bind()["run_id"]
    if queued:
        assert ws.run(second)["state"]["life_cycle_state"] in ("PENDING", "QUEUED")
        client.jobs.cancel_run(second)
        assert states(ws.ended(second)) == ("TERMINATED", "CANCELED")
    else:
        assert states(ws.ended(second)) == ("SKIPPED", "MAXIMUM_CONCURRENT_RUNS_REACHED")
    client.jobs.cancel_run(first)
    assert states(ws.ended(first)) == ("TERMINATED", "CANCELED")
