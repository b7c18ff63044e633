"""`mlops databricks-bundle`: the pipelines as Databricks jobs, without Dagster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_dagster.errors import MlopsError
from mlops_dagster.shell.output import DeploymentName, handle_errors, out, progress
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.spec.steps import steps_of

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment


def databricks_bundle(
    deployment: DeploymentName = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; - prints it.")] = Path(
        "databricks.yml"
    ),
) -> None:
    """Write a Databricks Asset Bundle: each pipeline of the models as a job of Databricks itself.

    Example: mlops databricks-bundle --deployment databricks_serverless
    """
    with handle_errors(as_json=False):
        from mlops_dagster.stack.databricks.bundle import bundle_text
        from mlops_dagster.stack.deployment_files import load_deployment

        name = deployment or os.environ.get("MLOPS_DEPLOYMENT") or "local"
        settings = load_deployment(name)
        text = bundle_text(settings, name, _models(settings) if settings.databricks else ())
        if str(output) == "-":
            typer.echo(text, nl=False)
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise MlopsError(f"{output} can't be written: {error.strerror or error}.") from None
        out.print(f"{output}: databricks bundle deploy --target dev", markup=False)


def _models(settings: Deployment) -> list[Declaration]:
    """Return the models declared here whose jobs can run there; say why another's can't."""
    from mlops_dagster.stack.databricks.project_files import check_travels

    found = []
    for name in model_names():
        model = find_model(name)
        try:
            check_travels(model, settings, steps_of(model), None)
        except MlopsError as error:
            progress.print(f"No jobs of {name}: {error}", markup=False)
        else:
            found.append(model)
    return found
