"""The pipelines as jobs of Databricks itself, without Dagster: a Databricks Asset Bundle, made of `pipelines.py`.

A job has a fixed line of arguments with a place for each parameter; `mlops` takes what is left empty as not given. The
deployment's settings travel in that line, since serverless tasks have no environment variables of their own. Secrets
don't: their names do, and `mlops` fetches them from the workspace's scopes.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from mlops_dagster import pipelines
from mlops_dagster.errors import refuse
from mlops_dagster.stack.databricks.api import libraries, new_cluster
from mlops_dagster.stack.databricks.travel import remote_environment

if TYPE_CHECKING:
    from mlops_dagster.stack.deployment import Deployment

WHEEL = "./dist/*.whl"
COMMANDS: Mapping[str, str] = {
    pipelines.BUILD_MODEL.name: "build-model",
    pipelines.SEARCH_MODEL.name: "search-model",
    pipelines.CLUSTER_SEARCH_MODEL.name: "cluster-search-model",
    pipelines.FORECAST.name: "forecast",
}
SYMBOL = "Which symbol, for example GSPC or IXIC."
_KEY = "mlops"  # of the job's cluster, or of its environment


def bundle_text(deployment: Deployment, name: str) -> str:
    """Return the text of ``databricks.yml``.

    Parameters
    ----------
    deployment : Deployment
        One that runs on Databricks: its cluster, libraries, secrets, permissions, store and tracking are the jobs'.
    name : str
        The deployment's, for the first line.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If the deployment says nothing about Databricks.
    TravelError
        If it can't be sent there without a secret.
    """
    text = yaml.dump(bundle_of(deployment), Dumper=_Readable, sort_keys=False, width=120, allow_unicode=True)
    return (
        f"# Made by `mlops databricks-bundle --deployment {name}`: change the deployment and make it again.\n"
        "# Deploy it with Databricks' own command: databricks bundle deploy --target dev. See docs/deployments.md.\n"
        + re.sub(r"^( +)- name: (\w+)\n(?=\1  default: )", _described, text, flags=re.MULTILINE)
    )


def bundle_of(deployment: Deployment) -> dict[str, Any]:
    """Return the bundle as Databricks' command reads it, see :func:`bundle_text`."""
    if deployment.databricks is None:
        cure = "it says nothing about Databricks; give a deployment with `databricks`, e.g. databricks_serverless."
        raise refuse("compute", deployment.compute, cure)
    targets: dict[str, Any] = {
        "dev": {"mode": "development", "default": True},
        "prod": {
            "mode": "production",
            "workspace": {"root_path": "/Workspace/Shared/.bundle/${bundle.name}/${bundle.target}"},
        },
    }
    if deployment.databricks.host:
        for target in targets.values():
            target.setdefault("workspace", {})["host"] = deployment.databricks.host
    variables = {
        "environment": {
            "description": "What the tasks know of the deployment, as environment variables. No secrets.",
            "default": json.dumps(_environment(deployment), indent=2),
        },
        "secrets": {
            "description": "Which secrets of the workspace become environment variables of the tasks.",
            "default": json.dumps([secret.model_dump() for secret in deployment.databricks.secrets]),
        },
    }
    return {
        "bundle": {"name": "mlops_dagster"},
        "variables": variables,
        # Its version says when it was built, so that no cluster takes an older wheel for the same.
        "artifacts": {
            "default": {
                "type": "whl",
                "path": ".",
                "build": "python -m pip wheel --no-deps --wheel-dir dist .",
                "dynamic_version": True,
            }
        },
        "resources": {"jobs": {pipeline.name: job_of(pipeline, deployment) for pipeline in pipelines.PIPELINES}},
        "targets": targets,
    }


def job_of(pipeline: pipelines.Pipeline, deployment: Deployment) -> dict[str, Any]:
    """Return one pipeline as a job of the bundle."""
    databricks = deployment.databricks
    assert databricks is not None
    task: dict[str, Any] = {
        "task_key": pipeline.name,
        "python_wheel_task": {
            "package_name": "mlops_dagster",
            "entry_point": "mlops",
            "parameters": _arguments(pipeline, databricks.host),
        },
    }
    job: dict[str, Any] = {
        "name": pipeline.name,
        "description": pipeline.description,
        "max_concurrent_runs": 4,
        "queue": {"enabled": True},
        "timeout_seconds": databricks.timeout_seconds,
        "tags": {"project": "mlops_dagster"},
        "parameters": [
            {"name": "symbol", "default": pipelines.BUNDLED_SYMBOLS[0]},
            *({"name": parameter.name, "default": _default(parameter)} for parameter in pipeline.parameters),
        ],
        "tasks": [task],
    }
    if access := _permissions(deployment):
        job["permissions"] = access
    more = [*databricks.libraries]
    if deployment.prices.source == "yahoo":
        more.append("yfinance")
    cluster = databricks.cluster
    if cluster.serverless is not None:
        task["environment_key"] = _KEY
        spec = {"environment_version": cluster.serverless.environment_version, "dependencies": [WHEEL, *more]}
        job["environments"] = [{"environment_key": _KEY, "spec": spec}]
        return job
    task["libraries"] = libraries(more, WHEEL)
    if cluster.new is not None:
        task["job_cluster_key"] = _KEY
        job["job_clusters"] = [{"job_cluster_key": _KEY, "new_cluster": new_cluster(cluster.new)}]
    else:
        task["existing_cluster_id"] = cluster.existing
    return job


def _default(parameter: pipelines.Parameter) -> str:
    # Empty is "not given": the recipe or the deployment says it then. A preset, if given, would forbid a grid.
    if parameter.name == "recipe":
        return pipelines.RECIPES[0]
    return "" if parameter.name == "preset" else str(pipelines.SEARCH_DEFAULTS.get(parameter.name, ""))


def _environment(deployment: Deployment) -> dict[str, Any]:
    """Return the deployment's variables; a section of settings as an object, since people read it here."""
    sent = remote_environment(deployment)
    return {name: json.loads(value) if value.startswith(("{", "[")) else value for name, value in sent.items()}


def _arguments(pipeline: pipelines.Pipeline, host: str | None) -> list[str]:
    origin = {"orchestrator": "databricks", "run_id": "{{job.run_id}}"}
    if host:
        origin["url"] = f"{host.rstrip('/')}/jobs/{{{{job.id}}}}/runs/{{{{job.run_id}}}}"
    names = ("symbol", *(parameter.name for parameter in pipeline.parameters))
    return [
        "--environment=${var.environment}",
        "--secrets=${var.secrets}",
        f"--origin={json.dumps(origin)}",
        COMMANDS[pipeline.name],
        *(f"--{name.replace('_', '-')}={{{{job.parameters.{name}}}}}" for name in names),
        "--json",
    ]


def _permissions(deployment: Deployment) -> list[dict[str, str]]:
    assert deployment.databricks is not None
    return [
        {"level": level, **accessor.model_dump(exclude_none=True)}
        for level, accessors in deployment.databricks.permissions.job.items()
        for accessor in accessors
        if level != "NO_PERMISSIONS"  # who isn't named in a bundle has none
    ]


def _described(found: re.Match[str]) -> str:
    said = SYMBOL if found[2] == "symbol" else pipelines.explain(found[2])
    lines = textwrap.wrap(said, 118 - len(found[1]))
    return "".join(f"{found[1]}# {line}\n" for line in lines) + found[0]


class _Readable(yaml.SafeDumper):
    """Lists below their name stand in from it, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Readable.add_representer(str, _text)
