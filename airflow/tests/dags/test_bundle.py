"""A step as a body of `runs/submit`, from the file that `mlops databricks-bundle` writes."""

import pytest
from airflow.sdk.exceptions import AirflowFailException

from include.on_databricks import submit_body

BUNDLE = """
variables:
  environment: {default: '{"MLOPS_INSIDE": "true"}'}
  secrets: {default: '[]'}
resources:
  jobs:
    build_model_pipeline:
      timeout_seconds: 60
      permissions: [{level: CAN_VIEW, group_name: analysts}]
      job_clusters:
        - job_cluster_key: mlops
          new_cluster: {spark_version: 17.3.x-scala2.13, num_workers: 2}
      tasks:
        - task_key: build_model_pipeline
          job_cluster_key: mlops
          libraries: [{whl: ./dist/*.whl}]
          python_wheel_task:
            package_name: mlops_dagster
            entry_point: mlops
            parameters:
              - --environment=${var.environment}
              - --secrets=${var.secrets}
              - --origin={}
              - build-model
              - stock_price
              - --symbol={{job.parameters.symbol}}
"""


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    file = tmp_path / "bundle.yml"
    file.write_text(BUNDLE)
    monkeypatch.setenv("AIRFLOW__MLOPS__DATABRICKS_BUNDLE", str(file))
    monkeypatch.setenv("AIRFLOW__MLOPS__DATABRICKS_WHEEL", "/Volumes/a/b/c/d.whl")
    return file


def test_cluster_libraries_settings_and_permissions_are_the_bundles(bundle):
    given = '--given={"path": "/Volumes/{{symbol}}.csv"}'
    body = submit_body("build_model_pipeline", "stock_price/data", "--origin=me", ["step", "stock_price/data", given])
    assert body["access_control_list"] == [{"permission_level": "CAN_VIEW", "group_name": "analysts"}]
    assert body["timeout_seconds"] == 60
    (task,) = body["tasks"]
    settings = ['--environment={"MLOPS_INSIDE": "true"}', "--secrets=[]"]
    assert task.pop("python_wheel_task") == {
        "package_name": "mlops_dagster",
        "entry_point": "mlops",
        "parameters": [*settings, "--origin=me", "step", "stock_price/data", given],
    }
    assert task == {
        "task_key": "data",
        "new_cluster": {"spark_version": "17.3.x-scala2.13", "num_workers": 2},
        "libraries": [{"whl": "/Volumes/a/b/c/d.whl"}],
        "timeout_seconds": 60,
    }


@pytest.mark.parametrize("text", [None, "", "[1]", "resources: {}", "a: b: c"])
def test_what_is_no_bundle_is_refused_with_the_cure(bundle, text):
    bundle.unlink()
    if text is not None:
        bundle.write_text(text)
    with pytest.raises(AirflowFailException, match="mlops databricks-bundle --deployment NAME --output"):
        submit_body("build_model_pipeline", "stock_price/data", "", [])


def test_a_wheel_has_to_be_named(bundle, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__DATABRICKS_WHEEL", "")
    with pytest.raises(AirflowFailException, match="databricks_wheel"):
        submit_body("build_model_pipeline", "stock_price/data", "", [])
