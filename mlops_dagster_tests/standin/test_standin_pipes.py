"""Dagster's own Pipes client for serverless drives the workspace unchanged."""

import dagster as dg
import pytest
from databricks.sdk.service import jobs

from mlops_dagster_tests.contracts.workspace import Workspace
from mlops_dagster_tests.standin.submitting import ENVIRONMENT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("standin_pipes")]

REMOTE = """
import dagster_pipes
with dagster_pipes.open_dagster_pipes(
    params_loader=dagster_pipes.PipesCliArgsParamsLoader(),
    context_loader=dagster_pipes.PipesUnityCatalogVolumesContextLoader(),
    message_writer=dagster_pipes.PipesUnityCatalogVolumesMessageWriter(),
) as pipes:
    pipes.report_asset_materialization(metadata={"asset": pipes.asset_key, "rows": 5})
"""


def test_an_asset_through_pipes(ws: Workspace) -> None:
    from dagster_databricks.pipes import PipesDatabricksServerlessClient

    (ws.volumes / "main" / "default" / "pipes").mkdir(parents=True)
    (ws.volumes / "main" / "remote.py").write_text(REMOTE)
    file = {"python_file": "/Volumes/main/remote.py"}
    task = jobs.SubmitTask.from_dict({"task_key": "t", "environment_key": "e", "spark_python_task": file})
    volume = "/Volumes/main/default/pipes"
    client = PipesDatabricksServerlessClient(ws.client(), volume_path=volume, poll_interval_seconds=0.2)
    given = {"environments": [jobs.JobEnvironment.from_dict(ENVIRONMENT)]}

    @dg.asset
    def numbers(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
        return client.run(task=task, context=context, submit_args=given).get_materialize_result()

    [event] = dg.materialize([numbers]).get_asset_materialization_events()
    seen = {name: value.value for name, value in event.materialization.metadata.items()}
    run = ws.runs()[-1]
    assert (seen["asset"], seen["rows"]) == ("numbers", 5)
    assert (seen["Databricks Job Run ID"], seen["Databricks Job Run URL"]) == (str(run["run_id"]), run["run_page_url"])
    assert not list((ws.volumes / "main/default/pipes/tmp").iterdir())
