"""`mlops deployments` as users run it, and on machines that have next to nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlops_dagster.cli import app

SHIPPED = {"databricks_pipes", "databricks_serverless", "databricks_step", "local", "spark"}


pytestmark = pytest.mark.usefixtures("no_settings")


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["deployments", *arguments])
    assert done.exit_code == status, done.output
    return done.stdout


def shown(*arguments: str) -> dict:
    return json.loads(run("show", *arguments, "--json"))


def setting(said: dict, name: str) -> tuple:
    (row,) = [row for row in said["settings"] if row["setting"] == name]
    return row["value"], row["from"]


def test_list_says_what_each_stack_is():
    listed = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert set(listed) >= SHIPPED
    assert listed["databricks_serverless"]["compute"] == "databricks_pipes, serverless"
    assert listed["databricks_step"]["store"] == "s3://my-bucket/mlops"
    assert Path(listed["spark"]["file"]).name == "spark.yaml"
    for name in SHIPPED:
        assert name in run("list")


def test_a_wrong_file_among_others_is_listed_as_wrong(tmp_path):
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "mine.yaml").write_text("stor: {}")
    listed = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert "did you mean store?" in listed["mine"]["problems"][0]
    assert "mlops deployments check mine" in run("list")


def test_show_says_where_each_setting_comes_from(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("store: {root: s3://tables}\nspark: {slots: 3}\ndata: {prices: {path: null}}\n")
    monkeypatch.setenv("MLOPS_STORE__ROOT", "s3://others")
    monkeypatch.setenv("MLOPS_TRACKING", '{"experiment_name": "theirs"}')
    said = shown("mine.yaml")
    assert setting(said, "store.root") == ("s3://others", "MLOPS_STORE__ROOT")
    assert setting(said, "tracking.experiment_name") == ("theirs", "MLOPS_TRACKING")
    assert setting(said, "spark.slots") == (3, "file")
    assert setting(said, "data.prices.path") == (None, "file")
    assert setting(said, "spark.train") == (False, "default")
    assert "MLOPS_STORE__ROOT" in run("show", "mine.yaml")


def test_show_shows_no_secret(monkeypatch):
    monkeypatch.setenv("MLOPS_STORE__STORAGE_OPTIONS__AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "sc://spark.example.com:15002/;token=hunter3")
    monkeypatch.setenv(
        "MLOPS_TRACKING__MLFLOW_TRACKING_URI", "postgresql://mlflow:hunter4@db/mlflow?sslpassword=hunter6"
    )
    monkeypatch.setenv("MLOPS_SPARK__CONF", '{"spark.hadoop.fs.s3a.secret.key": "hunter5"}')
    said = shown("local")
    assert setting(said, "store.storage_options.aws_secret_access_key")[0] == "***"
    assert setting(said, "spark.master")[0] == "sc://spark.example.com:15002"
    assert setting(said, "tracking.mlflow_tracking_uri") == (
        "postgresql://***@db/mlflow?sslpassword=***",
        "MLOPS_TRACKING__MLFLOW_TRACKING_URI",
    )
    for output in (json.dumps(said), run("show", "local"), run("list"), run("check", "local")):
        assert "hunter" not in output


def test_show_says_which_credentials_there_are(monkeypatch):
    monkeypatch.setenv("DATABRICKS_TOKEN", "hunter2")
    said = shown("databricks_pipes")
    assert said["credentials"]["DATABRICKS_TOKEN"] == "set"
    assert said["credentials"]["DATABRICKS_HOST"] == "missing"
    assert "hunter2" not in json.dumps(said) + run("show", "databricks_pipes")


def test_two_kinds_of_credentials_are_refused_until_one_is_chosen(monkeypatch):
    for name in ("DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
        monkeypatch.setenv(name, "hunter2")
    said = run("check", "databricks_pipes", status=2)
    assert "two kinds of credentials" in said
    assert "hunter2" not in said
    monkeypatch.setenv("MLOPS_DATABRICKS__AUTH", "oauth")
    run("check", "databricks_pipes")


def test_what_works_but_not_well_is_a_warning(tmp_path):
    file = tmp_path / "mine.yaml"
    shipped = Path(__file__).parents[2] / "deployments" / "databricks_pipes.yaml"
    file.write_text(shipped.read_text().replace("libraries: []", "libraries: [xgboost]"))
    (checked,) = json.loads(run("check", "mine.yaml", "--json"))
    assert "databricks.libraries.0='xgboost'" in checked["warnings"][0]
    assert "warning" in run("check", "mine.yaml")


def test_a_deployment_that_does_not_exist_is_an_error_of_use():
    assert "there is no such deployment" in run("check", "nowhere", status=2)
    assert "not both" in CliRunner().invoke(app, ["deployments", "check", "local", "--all"]).output


@pytest.mark.examples
def test_check_finds_what_only_a_models_declaration_refuses(tmp_path):
    """The settings are right by themselves, and no run could be launched."""
    (tmp_path / "mine.yaml").write_text("data: {prices: {source: ftp}}")
    (checked,) = json.loads(run("check", "mine.yaml", "--json", status=2))
    (problem,) = checked["problems"]
    assert "data.prices.source='ftp' (str): give one of bundled, files, yahoo. (It is in deployment " in problem
    (tmp_path / "mine.yaml").write_text("partitions: {price: [ACME]}")
    assert "did you mean prices?" in run("check", "mine.yaml", status=2)


@pytest.mark.examples
def test_check_finds_what_only_the_compute_refuses(monkeypatch):
    monkeypatch.setenv("MLOPS_STORE__ROOT", "s3://user:hunter2@bucket")
    said = run("check", "databricks_step", status=2)
    assert "store.root holds a secret" in said
    assert "hunter2" not in said


def test_a_variable_that_is_no_setting_is_a_warning(monkeypatch):
    monkeypatch.setenv("MLOPS_STOR__ROOT", "s3://tables")
    (checked,) = json.loads(run("check", "local", "--json"))
    assert "did you mean MLOPS_STORE__ROOT?" in checked["warnings"][0]


def test_without_dagster_the_settings_are_checked_all_the_same():
    code = "import sys; sys.modules['dagster'] = None; from mlops_dagster.cli import app; app(sys.argv[1:])"
    command = [sys.executable, "-c", code, "deployments", "check", "local", "databricks_step"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ok     databricks_step" in done.stdout
    assert "no plans were built" in done.stderr


@pytest.mark.slow
def test_check_all_needs_no_java_no_network_and_no_credentials(tmp_path):
    home = tmp_path / "empty"
    home.mkdir()
    environment = {"PATH": str(Path(sys.executable).parent), "HOME": str(home), "LANG": "C.UTF-8"}
    assert shutil.which("java", path=environment["PATH"]) is None
    command = [sys.executable, "-m", "mlops_dagster.cli", "deployments", "check", "--all"]
    if namespaces := without_network():
        command = [*namespaces, *command]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [["ok", f"{name}.yaml"] for name in sorted(SHIPPED)]
    assert list(home.iterdir()) == []
    assert [path for path in tmp_path.iterdir() if path != home] == []  # nothing was set up on the way


def without_network() -> list[str]:
    """Return what runs a command without any network, if this machine lets us."""
    unshare = shutil.which("unshare")
    command = [unshare or "", "--map-root-user", "--net"]
    allowed = unshare and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if allowed else []
