"""A deployment on its way to the cluster: the same stack there, and no secret on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_dagster.stack.databricks.travel import TravelError, left_behind, remote_environment
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment

FULL: dict[str, Any] = {
    "store": {
        "root": "s3://bucket/mlops",
        "storage_options": {"aws_region": "eu-west-1", "aws_endpoint_url": "https://s3.x"},
    },
    "tracking": {
        "experiment_name": "/Shared/mlops",
        "mlflow_tracking_uri": "https://mlflow.example.com",
        "env": {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30"},
        "extra_tags": {"team": "research", "quoted": 'a "b" {c}'},
    },
    "data": {"prices": {"source": "files", "path": "/Volumes/main/mlops/prices/{symbol}.csv"}},
    "spark": {"search": True, "slots": 4},
    "compute": "databricks_pipes",
    "dagster_url": "https://dagster.example.com",
    "databricks": {
        "host": "https://example.cloud.databricks.com",
        "cluster": {"serverless": {}},
        "staging": "/Volumes/main/mlops/staging/dagster",
        "environment": {"OMP_NUM_THREADS": "1", "NOTE": "äöü 'quoted'"},
    },
}


def deployment(folder: Path, **changed: Any) -> Deployment:
    """Load a deployment from a file, with whole sections replaced."""
    file = folder / "deployment.yaml"
    file.write_text(yaml.safe_dump({**FULL, **changed}))
    return load_deployment(str(file))


def there(environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """Load the deployment in a process that has these variables, and none of ours."""
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    code = (
        "from mlops_dagster.stack.deployment_files import load_deployment\nprint(load_deployment().model_dump_json())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_stack_is_the_same_there(tmp_path: Path) -> None:
    here = deployment(tmp_path)
    environment = remote_environment(here)
    found = there(environment, tmp_path / "there")
    sent = here.model_dump(mode="json")
    for part in ("store", "tracking", "data", "compute", "dagster_url"):
        assert found[part] == sent[part]
    assert found["spark"] == {**sent["spark"], "master": "active"}
    assert (found["home"], found["inside"], found["databricks"]) == ("/tmp/mlops_dagster", True, None)
    assert (environment["OMP_NUM_THREADS"], environment["NOTE"]) == ("1", "äöü 'quoted'")
    assert left_behind(here) == []


def test_the_environment_of_here_travels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_TRACKING__EXPERIMENT_NAME", "/Shared/mine")
    monkeypatch.setenv("MLOPS_STORE__ROOT", "s3://other/mlops")
    found = there(remote_environment(deployment(tmp_path)), tmp_path / "there")
    assert found["tracking"]["experiment_name"] == "/Shared/mine"
    assert found["store"]["root"] == "s3://other/mlops"


def test_another_spark_is_kept(tmp_path: Path) -> None:
    here = with_secret(deployment(tmp_path), "spark.master", "", "sc://spark.example.com:15002")
    assert json.loads(remote_environment(here)["MLOPS_SPARK"])["master"] == "sc://spark.example.com:15002"


# ----------------------------------------------------------------------------------------------------------- secrets

HIDDEN = "hidden-hidden-hidden"


def with_secret(here: Deployment, where: str, name: str, value: str) -> Deployment:
    """Put a secret where an environment variable or an older file could have put it; rules have no say."""
    part: Any = here
    *path, last = where.split(".")
    for step in path:
        part = part[step] if isinstance(part, dict) else getattr(part, step)
    if isinstance(part, dict):
        part[last] = value
    elif isinstance(getattr(part, last), dict):
        getattr(part, last)[name] = value
    else:
        setattr(part, last, value)
        part.model_fields_set.add(last)
    return here


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("store.storage_options", "aws_secret_access_key", HIDDEN),
        ("store.storage_options", "aws_access_key_id", HIDDEN),
        ("store.storage_options", "azure_storage_sas_token", HIDDEN),
        ("store.storage_options", "endpoint", f"https://me:{HIDDEN}@s3.example.com"),
        ("tracking.env", "MLFLOW_TRACKING_PASSWORD", HIDDEN),
        ("tracking.env", "MLFLOW_TRACKING_TOKEN", HIDDEN),
        ("tracking.extra_tags", "api_key", HIDDEN),
        ("tracking.artifact_location", "", f"https://store.example.com/x?sig={HIDDEN}"),
        ("tracking.ui_url", "", f"https://me:{HIDDEN}@mlflow.example.com"),
        ("spark.conf", "spark.hadoop.fs.s3a.secret.key", HIDDEN),
        ("spark.master", "", f"sc://spark.example.com:443/;token={HIDDEN}"),
        ("databricks.environment", "WANDB_API_KEY", HIDDEN),
        ("databricks.environment", "PRICES_URL", f"https://me:{HIDDEN}@prices.example.com"),
        ("dagster_url", "", f"https://me:{HIDDEN}@dagster.example.com"),
    ],
)
def test_no_secret_travels(tmp_path: Path, where: str, name: str, value: str) -> None:
    here = with_secret(deployment(tmp_path), where, name, value)
    sent = remote_environment(here)
    assert HIDDEN not in json.dumps(sent)
    shown = left_behind(here)
    assert len(shown) == 1
    assert HIDDEN not in shown[0]
    assert shown[0].endswith(name or where)
    # What is left still is a deployment.
    found = there(sent, tmp_path / "there")
    assert found["store"]["root"] == "s3://bucket/mlops"
    if where == "spark.master":
        assert found["spark"]["master"] == "active"


@pytest.mark.parametrize(
    ("where", "value", "variable"),
    [
        ("tracking.mlflow_tracking_uri", f"postgresql://me:{HIDDEN}@db/mlflow", "MLOPS_TRACKING__MLFLOW_TRACKING_URI"),
        ("data.prices.path", f"https://x.com/{{symbol}}.csv?sig={HIDDEN}", "MLOPS_DATA__PRICES__PATH"),
        ("store.root", f"s3://me:{HIDDEN}@bucket/mlops", "MLOPS_STORE__ROOT"),
    ],
)
def test_a_place_with_a_secret_needs_one_of_the_workspace(
    tmp_path: Path, where: str, value: str, variable: str
) -> None:
    here = with_secret(deployment(tmp_path), where, "", value)
    with pytest.raises(TravelError, match=f"{where} holds a secret.*name: {variable}") as caught:
        remote_environment(here)
    assert HIDDEN not in str(caught.value)
    provided = {**FULL["databricks"], "secrets": [{"name": variable, "scope": "mlops", "key": "place"}]}
    here = with_secret(deployment(tmp_path, databricks=provided), where, "", value)
    sent = remote_environment(here)
    assert HIDDEN not in json.dumps(sent)
    assert left_behind(here) == []
    # There, the secret's variable fills the gap.
    found = there({**sent, variable: value}, tmp_path / "there")
    for name in where.split("."):
        found = found[name]
    assert found == value


def test_a_reference_is_no_secret(tmp_path: Path) -> None:
    here = with_secret(deployment(tmp_path), "databricks.environment", "API_KEY", "{{secrets/mlops/key}}")
    assert remote_environment(here)["API_KEY"] == "{{secrets/mlops/key}}"
    assert left_behind(here) == []


def test_what_a_secret_of_the_workspace_provides_isnt_left_behind(tmp_path: Path) -> None:
    secrets = [{"name": "MLFLOW_TRACKING_TOKEN", "scope": "mlops", "key": "token"}]
    here = deployment(tmp_path, databricks={**FULL["databricks"], "secrets": secrets})
    with_secret(here, "tracking.env", "MLFLOW_TRACKING_TOKEN", HIDDEN)
    assert left_behind(here) == []
