"""`mlops databricks-bundle`: valid for Databricks' own models, the same as in the repository, and its jobs do run."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from databricks.bundles.jobs import Job
from databricks.sdk.service.jobs import JobSettings
from mlflow import MlflowClient
from typer.testing import CliRunner

from mlops_dagster.cli import app
from mlops_dagster.shell.calling import plain_arguments
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.steps import pipelines_of
from mlops_dagster.stack.databricks.bundle import bundle_text
from mlops_dagster.stack.databricks.wheel import build_wheel
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import Store
from mlops_dagster_tests.contracts.bundle import jobs_of
from mlops_dagster_tests.contracts.servers import mlflow_server
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.contracts.workspace import workspace

ROOT = Path(__file__).parents[2]
ARTICLE, STOCK_PRICE = (pipelines_of(shipped(name)) for name in ("article", "stock_price"))
NAMES = [pipeline.name for pipeline in STOCK_PRICE]
ON_DATABRICKS = ("databricks_pipes", "databricks_serverless", "databricks_step")


pytestmark = pytest.mark.usefixtures("no_settings")


def bundle(name: str, *models: str) -> dict:
    found = [find_model(model) for model in ("stock_price", *models)]
    return yaml.safe_load(bundle_text(load_deployment(name), name, found))


def test_the_committed_file_is_what_the_command_writes_now():
    done = CliRunner().invoke(app, ["databricks-bundle", "--deployment", "databricks_serverless"])
    assert done.exit_code == 0, done.output
    assert Path("databricks.yml").read_text() == (ROOT / "databricks.yml").read_text()
    printed = CliRunner().invoke(app, ["databricks-bundle", "-d", "databricks_serverless", "--output", "-"]).stdout
    assert printed == (ROOT / "databricks.yml").read_text()


@pytest.mark.parametrize("name", ON_DATABRICKS)
def test_every_job_is_one_that_databricks_knows(name):
    jobs = jobs_of(bundle(name))
    assert list(jobs) == NAMES
    for job in jobs.values():
        known = Job.from_dict(job).as_dict()  # refuses unknown fields
        assert known == job
        sent = {key: value for key, value in job.items() if key != "permissions"}  # the bundle's, not the API's
        assert JobSettings.from_dict(sent).as_dict() == sent


def test_a_field_that_databricks_does_not_know_would_be_found():
    job = jobs_of(bundle("databricks_serverless"))[NAMES[0]]
    job["tasks"][0]["enviroment_key"] = job["tasks"][0].pop("environment_key")
    with pytest.raises(ValueError, match="enviroment_key"):
        Job.from_dict(job)


def test_every_parameter_is_one_of_the_job_with_its_words():
    text = (ROOT / "databricks.yml").read_text()
    jobs = jobs_of(yaml.safe_load(text))
    for pipeline, command in zip(
        STOCK_PRICE, ("build-model", "search-model", "cluster-search-model", "predict"), strict=True
    ):
        job = jobs[pipeline.name]
        arguments = job["tasks"][0]["python_wheel_task"]["parameters"]
        parameters = {one.name for step in pipeline.steps for one in step.parameters}
        assert sorted(one["name"] for one in job["parameters"]) == sorted({"symbol", *parameters})
        assert job["parameters"][0] == {"name": "symbol", "default": "GSPC"}
        for parameter in ("symbol", *parameters):
            assert f"--{parameter.replace('_', '-')}={{{{job.parameters.{parameter}}}}}" in arguments
        assert all(pipeline.explain(parameter)[:60] in text for parameter in parameters)
        assert arguments[3:5] == [command, "stock_price"]


def test_models_of_a_project_have_jobs_whose_wheel_holds_them(tmp_path):
    for name in ("breast_cancer", "demand", "house_value"):
        shutil.copytree(ROOT / "examples" / "defs" / name, tmp_path / "defs" / name)
    file = tmp_path / "defs" / "house_value" / "defs.yaml"
    file.write_text(file.read_text().replace("function: .data:load", "asset: houses"))
    done = CliRunner().invoke(app, ["databricks-bundle", "--deployment", "databricks_serverless"])
    assert done.exit_code == 0, done.output
    assert "No jobs of house_value: data.asset='houses': only the Dagster" in " ".join(done.output.split())
    text = Path("databricks.yml").read_text()
    jobs = jobs_of(yaml.safe_load(text))
    pipelines_there = {one.name: one for name in ("breast_cancer", "demand") for one in pipelines_of(find_model(name))}
    assert list(jobs) == [*(one.name for one in ARTICLE), *pipelines_there, *NAMES]
    for name, pipeline in pipelines_there.items():
        assert Job.from_dict(jobs[name]).as_dict() == jobs[name]
        assert jobs[name]["parameters"] == [
            *([{"name": "series", "default": ""}] if name.startswith("demand") else []),
            *({"name": one.name, "default": ""} for one in pipeline.parameters),
        ]
    arguments = jobs["demand_predict_pipeline"]["tasks"][0]["python_wheel_task"]["parameters"]
    assert arguments[3:6] == ["predict", "demand", "--series={{job.parameters.series}}"]
    assert "# How many trees the forest has. Give an integer" in text
    assert "# Which series." in text
    built = yaml.safe_load(text)["artifacts"]["default"]["build"]
    assert built == "python -m mlops_dagster.stack.databricks.wheel dist"
    assert "scikit-learn==" in str(jobs["breast_cancer_build_model_pipeline"]["environments"])


def test_cluster_libraries_secrets_and_permissions_are_the_deployments(tmp_path):
    text = (ROOT / "deployments" / "databricks_pipes.yaml").read_text()
    lines = {
        "libraries: []": "libraries: [xgboost==3.0.5, /Volumes/main/mlops/mlops/own.whl]",
        "secrets: []": "secrets: [{name: S3_KEY, scope: mlops, key: s3}]",
        "job: {}": "job: {CAN_VIEW: [{group_name: analysts}]}",
        "num_workers: 2": "num_workers: 0",
        "host: null": "host: https://dbc-1.cloud.databricks.com",
    }
    for old, new in lines.items():
        assert old in text
        text = text.replace(old, new)
    Path("mine.yaml").write_text(text)
    made = bundle("mine.yaml")
    job = jobs_of(made)["build_model_pipeline"]
    (task,) = job["tasks"]
    named = [{"pypi": {"package": "xgboost==3.0.5"}}, {"whl": "/Volumes/main/mlops/mlops/own.whl"}]
    assert (task["libraries"][0], task["libraries"][-2:]) == ({"whl": "./dist/*.whl"}, named)
    assert job["permissions"] == [{"level": "CAN_VIEW", "group_name": "analysts"}]
    (cluster,) = job["job_clusters"]
    assert task["job_cluster_key"] == cluster["job_cluster_key"]
    assert cluster["new_cluster"]["spark_conf"]["spark.master"] == "local[*]"  # a single machine
    assert json.loads(made["variables"]["secrets"]["default"]) == [{"name": "S3_KEY", "scope": "mlops", "key": "s3"}]
    assert made["targets"]["prod"]["workspace"]["host"] == "https://dbc-1.cloud.databricks.com"
    assert Job.from_dict(job).as_dict() == job


def test_a_deployment_without_databricks_is_refused():
    done = CliRunner().invoke(app, ["databricks-bundle", "--deployment", "spark"])
    assert done.exit_code == 2
    assert "databricks_serverless" in done.output


def test_no_secret_of_the_environment_is_written(monkeypatch):
    monkeypatch.setenv("MLOPS_STORE__STORAGE_OPTIONS__AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("DATABRICKS_TOKEN", "hunter3")
    assert "hunter" not in bundle_text(load_deployment("databricks_step"), "databricks_step", [])


def test_what_a_job_leaves_empty_counts_as_not_given():
    filled = ["--horizon=", "--bootstrap=False", "--path= ", "--grid={}", "--symbol=^GSPC", "--bootstrap=true"]
    assert plain_arguments(filled, {"--bootstrap"}) == ["--no-bootstrap", "--grid={}", "--symbol=^GSPC", "--bootstrap"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--environment", "{hunter2"], "environment: that is no JSON"),
        (["--environment", "[]"], "environment: give an object"),
        (["--secrets", '[{"name": "A"}]'], "name, scope and key"),
        (["--origin", '{"run": "hunter2"}'], "orchestrator, run_id"),
    ],
)
def test_orders_that_make_no_sense_are_refused(arguments, said):
    done = CliRunner().invoke(app, [*arguments, "report"])
    assert done.exit_code == 2
    assert said in done.output
    assert "hunter2" not in done.output


def test_the_shell_runs_no_step_that_belongs_on_databricks():
    done = CliRunner().invoke(app, ["build-model", "--symbol", "GSPC", "-d", "databricks_pipes"])
    assert done.exit_code == 2
    assert "mlops databricks-bundle" in done.output


# ------------------------------------------------------------------------------------------ on the stand-in workspace

DEPLOYMENT = """
compute: databricks_pipes
store: {{root: /Volumes/main/mlops/mlops/store}}
tracking: {{mlflow_tracking_uri: '{mlflow}', experiment_name: mine}}
data: {{prices: {{source: files, path: '/Volumes/main/mlops/mlops/inbox/{{symbol}}.csv'}}}}
databricks:
  host: {host}
  cluster:
    {cluster}
  staging: /Volumes/main/mlops/mlops/staging
  secrets: [{{name: MLOPS_TRACKING__EXTRA_TAGS, scope: mlops, key: tags}}]
"""
CLASSIC = "new: {spark_version: 17.3.x-scala2.13, node_type_id: small, num_workers: 1}"
SMALL_MODEL = {
    **{"symbol": "ACME", "max_depth": "4", "n_estimators": "5", "min_samples_leaf": "5", "bootstrap": "false"},
    "beat_baseline": "false",
}


@pytest.mark.slow
@pytest.mark.xdist_group("databricks_bundle")
def test_a_job_runs(tmp_path, price_rows):
    """With a secret, a flag and a cluster of its own; all three on serverless are a cell of the swap matrix."""
    pipeline = "build_model_pipeline"
    with mlflow_server(tmp_path) as mlflow, workspace(tmp_path / "workspace") as ws:
        volume = ws.volumes / "main" / "mlops" / "mlops"
        (volume / "inbox").mkdir(parents=True)
        price_rows.to_csv(volume / "inbox" / "ACME.csv", index=False)
        shutil.copytree(ROOT / "examples" / "defs" / "breast_cancer", tmp_path / "defs" / "breast_cancer")
        wheel = build_wheel(volume / "wheels")
        ws.set_secret("mlops", "tags", '{"from": "the scope"}')
        Path("mine.yaml").write_text(DEPLOYMENT.format(mlflow=mlflow, host=ws.url, cluster=CLASSIC))

        def run(pipeline, given):
            text = json.dumps(jobs_of(bundle("mine.yaml", "breast_cancer"))[pipeline])
            job = json.loads(text.replace("./dist/*.whl", f"/Volumes/main/mlops/mlops/wheels/{wheel.name}"))
            job_id = ws.call("POST", "/api/2.2/jobs/create", job)["job_id"]
            run_id = ws.call("POST", "/api/2.2/jobs/run-now", {"job_id": job_id, "job_parameters": given})["run_id"]
            assert ws.ended(run_id)["state"]["result_state"] == "SUCCESS", ws.stderr(run_id)
            report = json.loads(ws.stdout(run_id))
            assert (report["pipeline"], report["run_id"]) == (pipeline, str(run_id))
            return run_id, report

        run_id, report = run(pipeline, SMALL_MODEL)
        assert Store(volume / "store" / "stock_price").current("champion_model", "ACME") is not None
        (mlflow_run,) = {one["mlflow_run_id"] for one in report["symbols"]["ACME"].values()} - {None}
        tracked = MlflowClient(mlflow).get_run(mlflow_run)
        assert tracked.info.status == "FINISHED"
        assert tracked.data.tags["orchestrator"] == "databricks"
        assert tracked.data.tags["orchestrator_run_id"] == str(run_id)
        assert tracked.data.tags["from"] == "the scope"
        assert tracked.data.params["bootstrap"] == "False"
        _, report = run("breast_cancer_build_model_pipeline", {"n_estimators": "5", "beat_baseline": "false"})
        (made,) = report["symbols"].values()
        assert made["champion_model"]["champion"]
        assert Store(volume / "store" / "breast_cancer").current("champion_model", "all") is not None
        # What the champion is for: a job of its own.
        _, report = run("predict_pipeline", {"symbol": "ACME", "catch_up": "3"})
        assert report["symbols"]["ACME"]["prediction_quality"]["table"]["rows"] == 3
        assert not ws.live_processes()
