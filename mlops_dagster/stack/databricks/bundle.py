"""The pipelines as jobs of Databricks itself, without Dagster: a Databricks Asset Bundle.

A job has a fixed line of arguments with a place for each parameter; `mlops` takes what is left empty as not given. The
deployment's settings travel in that line, since serverless tasks have no environment variables of their own. Secrets
don't: their names do, and `mlops` fetches them from the workspace's scopes.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from mlops_dagster import pipelines
from mlops_dagster.errors import refuse
from mlops_dagster.spec.steps import pipelines_of
from mlops_dagster.stack.databricks.api import libraries, new_cluster
from mlops_dagster.stack.databricks.travel import remote_environment
from mlops_dagster.stack.databricks.wheel import reads_yahoo, requirements_of

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment

WHEEL = "./dist/*.whl"
COMMANDS: Mapping[str, str] = {
    pipelines.BUILD_MODEL.name: "build-model",
    pipelines.SEARCH_MODEL.name: "search-model",
    pipelines.CLUSTER_SEARCH_MODEL.name: "cluster-search-model",
    pipelines.FORECAST.name: "forecast",
    "predict_pipeline": "predict",
}
SYMBOL = "Which symbol, for example GSPC or IXIC."
_KEY = "mlops"  # of the job's cluster, or of its environment


def bundle_text(deployment: Deployment, name: str, models: Sequence[Declaration] = ()) -> str:
    """Return the text of ``databricks.yml``.

    Parameters
    ----------
    deployment : Deployment
        One that runs on Databricks: its cluster, libraries, secrets, permissions, store and tracking are the jobs'.
    name : str
        The deployment's, for the first line.
    models : sequence of Declaration, optional
        Whose pipelines are jobs, too, besides those of daily prices.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If the deployment says nothing about Databricks.
    TravelError
        If it can't be sent there without a secret.
    """
    made = bundle_of(deployment, models)
    text = yaml.dump(made, Dumper=_Readable, sort_keys=False, width=120, allow_unicode=True)
    return (
        f"# Made by `mlops databricks-bundle --deployment {name}`: change the deployment and make it again.\n"
        "# Deploy it with Databricks' own command: databricks bundle deploy --target dev. See docs/deployments.md.\n"
        + _described(text, models)
    )


def bundle_of(deployment: Deployment, models: Sequence[Declaration] = ()) -> dict[str, Any]:
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
    wheel: dict[str, Any] = {"type": "whl", "path": "."}
    if models:
        # With the models in it; its version is its content.
        wheel["build"], required = "python -m mlops_dagster.stack.databricks.wheel dist", requirements_of(deployment)
    else:
        # Its version says when it was built, so that no cluster takes an older wheel for the same.
        wheel |= {"build": "python -m pip wheel --no-deps --wheel-dir dist .", "dynamic_version": True}
        required = [*deployment.databricks.libraries]
        required += ["yfinance"] if reads_yahoo(deployment) else []
    jobs = {
        pipeline.name: job_of(pipeline, deployment, required, model)
        for model in (None, *models)
        for pipeline in (pipelines.PIPELINES if model is None else pipelines_of(model))
    }
    return {
        "bundle": {"name": "mlops_dagster"},
        "variables": variables,
        "artifacts": {"default": wheel},
        "resources": {"jobs": jobs},
        "targets": targets,
    }


def job_of(
    pipeline: pipelines.Pipeline, deployment: Deployment, required: list[str], model: Declaration | None
) -> dict[str, Any]:
    """Return one pipeline, of a declared model or of daily prices, as a job that installs what is required."""
    databricks = deployment.databricks
    assert databricks is not None
    task: dict[str, Any] = {
        "task_key": pipeline.name,
        "python_wheel_task": {
            "package_name": "mlops_dagster",
            "entry_point": "mlops",
            "parameters": _arguments(pipeline, databricks.host, model),
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
            *({"name": name, "default": first} for name, (first, _) in _partition(model).items()),
            *({"name": one.name, "default": _default(one) if model is None else ""} for one in pipeline.parameters),
        ],
        "tasks": [task],
    }
    if access := _permissions(deployment):
        job["permissions"] = access
    cluster = databricks.cluster
    if cluster.serverless is not None:
        task["environment_key"] = _KEY
        spec = {"environment_version": cluster.serverless.environment_version, "dependencies": [WHEEL, *required]}
        job["environments"] = [{"environment_key": _KEY, "spec": spec}]
        return job
    task["libraries"] = libraries(required, WHEEL)
    if cluster.new is not None:
        task["job_cluster_key"] = _KEY
        job["job_clusters"] = [{"job_cluster_key": _KEY, "new_cluster": new_cluster(cluster.new)}]
    else:
        task["existing_cluster_id"] = cluster.existing
    return job


def _partition(model: Declaration | None) -> dict[str, tuple[str, str]]:
    """Return the parameter that says for what a job runs, if there is one: its default, and what it is."""
    if model is None:
        return {"symbol": (pipelines.BUNDLED_SYMBOLS[0], SYMBOL)}
    if model.partitions is None:
        return {}
    return {"partition": ((model.partitions.keys or [""])[0], f"Which {model.partitions.name}.")}


def _default(parameter: pipelines.Parameter) -> str:
    # Empty is "not given": the recipe or the deployment says it then. A preset, if given, would forbid a grid.
    if parameter.name == "recipe":
        return pipelines.RECIPES[0]
    return "" if parameter.name == "preset" else str(pipelines.SEARCH_DEFAULTS.get(parameter.name, ""))


def _environment(deployment: Deployment) -> dict[str, Any]:
    """Return the deployment's variables; a section of settings as an object, since people read it here."""
    sent = remote_environment(deployment)
    return {name: json.loads(value) if value.startswith(("{", "[")) else value for name, value in sent.items()}


def _arguments(pipeline: pipelines.Pipeline, host: str | None, model: Declaration | None) -> list[str]:
    origin = {"orchestrator": "databricks", "run_id": "{{job.run_id}}"}
    if host:
        origin["url"] = f"{host.rstrip('/')}/jobs/{{{{job.id}}}}/runs/{{{{job.run_id}}}}"
    names = (*_partition(model), *(parameter.name for parameter in pipeline.parameters))
    whose = [] if model is None else [model.name]
    command = COMMANDS[pipeline.name.removeprefix(f"{model.name}_") if model else pipeline.name]
    return [
        "--environment=${var.environment}",
        "--secrets=${var.secrets}",
        f"--origin={json.dumps(origin)}",
        command,
        *whose,
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


def _described(text: str, models: Sequence[Declaration]) -> str:
    """Put above each parameter of a job what it is."""
    of_models = {pipeline.name: (model, pipeline) for model in models for pipeline in pipelines_of(model)}
    made, job = [], ""
    for line in text.splitlines(keepends=True):
        if found := re.fullmatch(r"    (\w+):\n", line):
            job = found[1]
        if found := re.fullmatch(r"( +)- name: (\w+)\n", line):
            model, pipeline = of_models.get(job, (None, None))
            if found[2] in _partition(model):
                said = _partition(model)[found[2]][1]
            else:
                said = pipelines.explain(found[2]) if pipeline is None else pipeline.explain(found[2])
            made += [f"{found[1]}# {one}\n" for one in textwrap.wrap(said, 118 - len(found[1]))]
        made.append(line)
    return "".join(made)


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
