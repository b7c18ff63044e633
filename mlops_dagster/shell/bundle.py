"""`mlops databricks-bundle`: the pipelines as Databricks jobs, without Dagster."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mlops_dagster.errors import MlopsError
from mlops_dagster.shell.output import DeploymentName, handle_errors, out


def databricks_bundle(
    deployment: DeploymentName = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; - prints it.")] = Path(
        "databricks.yml"
    ),
) -> None:
    """Write a Databricks Asset Bundle: each pipeline as a job of Databricks itself, without Dagster.

    Example: mlops databricks-bundle --deployment databricks_serverless
    """
    with handle_errors(as_json=False):
        from mlops_dagster.stack.databricks.bundle import bundle_text
        from mlops_dagster.stack.deployment_files import load_deployment

        name = deployment or os.environ.get("MLOPS_DEPLOYMENT") or "local"
        text = bundle_text(load_deployment(name), name)
        if str(output) == "-":
            typer.echo(text, nl=False)
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise MlopsError(f"{output} can't be written: {error.strerror or error}.") from None
        out.print(f"{output}: databricks bundle deploy --target dev", markup=False)
