"""Each file in `wrong/` has one plausible mistake; its first line has the words by which it is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlops_dagster.cli import app
from mlops_dagster.stack.deployment_files import DeploymentError, load_deployment

WRONG = sorted((Path(__file__).parent / "wrong").glob("*.yaml"))
SECRETS = ("hunter2", "dapi00112233445566778899aabbccddeeff", "AKIA0123456789ABCDEF")
AS_PROCESSES = ("step_launcher_with_a_local_store", "token_in_the_file", "connect_with_the_step_launcher")


pytestmark = pytest.mark.usefixtures("no_settings")


def says(file: Path) -> str:
    return file.read_text().splitlines()[0].removeprefix("# says: ")


def test_there_are_enough():
    assert len(WRONG) >= 25


@pytest.mark.parametrize("file", WRONG, ids=lambda file: file.stem)
def test_a_wrong_file_is_refused_with_a_sentence_worth_reading(file):
    done = CliRunner().invoke(app, ["deployments", "check", str(file), "--json"])
    assert done.exit_code == 2, done.output
    (checked,) = json.loads(done.stdout)
    (problem,) = checked["problems"]  # one mistake, one problem
    assert says(file) in problem
    assert not any(secret in done.output for secret in SECRETS)
    with pytest.raises(DeploymentError) as refused:  # Dagster and every other command refuse it alike
        load_deployment(str(file))
    assert problem in str(refused.value)


@pytest.mark.parametrize("name", AS_PROCESSES)
def test_the_same_as_people_run_it(name):
    file = next(file for file in WRONG if file.stem == name)
    command = [sys.executable, "-m", "mlops_dagster.cli", "deployments", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith(f"wrong  {name}.yaml")
    assert says(file) in done.stdout
    assert "Traceback" not in done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)


def test_all_problems_are_said_at_once(tmp_path):
    file = tmp_path / "many.yaml"
    file.write_text(
        "compute: databricks_step\nstore: {root: store}\ntracking: {client: dagster-mlflow}\n"
        "databricks:\n  cluster: {serverless: {}}\n  environment: {A_TOKEN: hunter2}\n"
    )
    done = CliRunner().invoke(app, ["deployments", "check", str(file)])
    assert done.exit_code == 2
    for setting in (
        "store.root",
        "mlflow_tracking_uri",
        "tracking.client",
        "cluster.serverless",
        "environment.A_TOKEN",
    ):
        assert setting in done.stdout
    assert "hunter2" not in done.output
