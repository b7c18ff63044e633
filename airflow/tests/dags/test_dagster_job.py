"""The example DAG against a real `dagster dev`: Airflow keeps the schedule, Dagster does the work."""

import pytest

MODEL = {"max_depth": 4, "n_estimators": 10, "min_samples_leaf": 5}


@pytest.fixture
def run(airflow, dagster):
    """Run the DAG to its end."""
    airflow.call("/dags/dagster_job", "PATCH", {"is_paused": False})

    def until_its_end(model, end):
        config = {"ops": {"stock_price__trained_model": {"config": model}}}
        conf = {"job": "build_model_pipeline", "symbol": "GSPC", "run_config": config}
        run = airflow.trigger("dagster_job", conf)
        assert run.ended() == end, run.log("dagster_run")
        return run

    return until_its_end


def test_dagster_makes_the_model(run, dagster):
    made = run(MODEL, "success")
    said = made.facts("dagster_run")
    assert said["url"] == f"{dagster.url}/runs/{said['run_id']}"
    query = "query($id: ID!) {runOrError(runId: $id) {... on Run {status runConfigYaml tags {key value}}}}"
    there = dagster.ask(query, id=said["run_id"])
    tags = {tag["key"]: tag["value"] for tag in there["tags"]}
    assert (there["status"], tags["dagster/partition"]) == ("SUCCESS", "GSPC")
    assert tags["airflow/run_id"] == made.run_id
    assert all(f"{name}: {value}\n" in there["runConfigYaml"] for name, value in MODEL.items())


def test_a_run_that_fails_says_why(run):
    said = run({**MODEL, "n_estimators": 0}, "failed").log("dagster_run")
    assert "Dagster's run ended with FAILURE" in said
    assert "n_estimators=0 (int): give an integer from 1 to 10000" in said


def test_what_dagster_refuses_is_no_run(run):
    assert "Dagster refused build_model_pipeline" in run({"max_depht": 4}, "failed").log("dagster_run")
