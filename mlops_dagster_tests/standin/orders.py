"""From a task's definition to what its process has to do: compute, libraries, parameters, placeholders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_dagster_tests.standin.bodies import kind_of
from mlops_dagster_tests.standin.processes import Order, StartError
from mlops_dagster_tests.standin.settings import Settings
from mlops_dagster_tests.standin.states import Run, TaskRun


def order_of(settings: Settings, run: Run, attempt: TaskRun) -> Order:
    """Return the order for one attempt at a task."""
    body, task = run.body, attempt.task
    kind = kind_of(task)
    cluster = task.get("new_cluster") or _job_cluster(body, task) or {}
    serverless = task.get("environment_key") is not None
    # Shared ("standard") clusters give Spark Connect as well, and a cluster without Unity Catalog has no volumes.
    connect = serverless or cluster.get("data_security_mode") in ("USER_ISOLATION", "DATA_SECURITY_MODE_STANDARD")
    values = {
        "job.id": run.job_id,
        "job.run_id": run.run_id,
        "task.name": attempt.key,
        "task.run_id": attempt.run_id,
        **{f"job.parameters.{name}": value for name, value in run.parameters.items()},
    }
    definition = task[kind]
    return Order(
        mounts=[
            *(["dbfs"] if settings.dbfs and not serverless else []),
            *(["Volumes"] if cluster.get("data_security_mode") != "NONE" else []),
        ],
        folder=attempt.folder,
        kind=kind,
        definition=definition,
        parameters=[_filled(each, values) for each in _parameters(definition, run.parameters)],
        engine="connect" if connect and settings.engine != "none" else settings.engine,
        cluster_id=attempt.cluster_id,
        libraries=_wheels(body, task),
        spark_conf={**_log_tags(cluster), **(cluster.get("spark_conf") or {})},
        environment={
            name: _with_secret(settings.root, value) for name, value in (cluster.get("spark_env_vars") or {}).items()
        },
    )


def _job_cluster(body: Mapping[str, Any], task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for each in body.get("job_clusters") or []:
        if each["job_cluster_key"] == task.get("job_cluster_key"):
            found: Mapping[str, Any] = each["new_cluster"]
            return found
    return None


def _log_tags(cluster: Mapping[str, Any]) -> dict[str, str]:
    """Return what a session says about the delivery of its cluster's logs; Pipes' log readers ask for it."""
    target = ((cluster.get("cluster_log_conf") or {}).get("dbfs") or {}).get("destination")
    tags = {} if target is None else {"LogDeliveryEnabled": "true", "LogDestination": target}
    return {f"spark.databricks.clusterUsageTags.cluster{name}": value for name, value in tags.items()}


def _parameters(definition: Mapping[str, Any], job: Mapping[str, str]) -> list[str]:
    """Named parameters take the job's parameters along, which win; a list stays as it is."""
    if definition.get("parameters") is not None or "python_file" in definition:
        return list(definition.get("parameters") or [])
    return [f"--{name}={value}" for name, value in {**(definition.get("named_parameters") or {}), **job}.items()]


def _filled(text: str, values: Mapping[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1]
        return str(values[name]) if name in values else found[0]

    return re.sub(r"\{\{\s*([\w.\-]+)\s*\}\}", value, text)


def _wheels(body: Mapping[str, Any], task: Mapping[str, Any]) -> list[str]:
    if task.get("environment_key") is None:
        return [str(each["whl"]) for each in task.get("libraries") or [] if "whl" in each]
    for environment in body.get("environments") or []:
        if environment["environment_key"] == task["environment_key"]:
            wanted = environment["spec"].get("dependencies") or []
            return [str(each) for each in wanted if str(each).endswith(".whl")]
    return []


def _with_secret(root: Path, value: str) -> str:
    """Replace a value of the form `{{secrets/scope/key}}`, as a cluster does for its environment variables."""
    found = re.fullmatch(r"\{\{secrets/([^/}]+)/([^/}]+)\}\}", value)
    if found is None:
        return value
    file = root / "secrets.json"
    secrets = json.loads(file.read_text()) if file.exists() else {}
    try:
        secret = secrets[found[1]][found[2]]
    except KeyError:
        message = f"Secret does not exist with scope: {found[1]} and key: {found[2]}"
        raise StartError(f"Cluster could not be started: {message}") from None
    return str(secret)
