"""`mlops build-model`: a model of each symbol, and who is champion."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from mlops_dagster import pipelines
from mlops_dagster.shell.champion import say_decision, say_what_follows
from mlops_dagster.shell.options import takes
from mlops_dagster.shell.output import AsJson, DeploymentName, Symbols, handle_errors, out
from mlops_dagster.shell.running import Reports, checked, run_pipeline

if TYPE_CHECKING:
    from mlops_dagster.session import Session


@takes(pipelines.BUILD_MODEL.parameters)
def build_model(
    symbol: Symbols, given: dict[str, Any], deployment: DeploymentName = None, as_json: AsJson = False
) -> None:
    """Build a model: prices, training set, trained model, champion (build_model_pipeline).

    Example: mlops build-model --symbol GSPC --max-depth 80 --n-estimators 100
    """
    with handle_errors(as_json):
        by_step = checked(pipelines.BUILD_MODEL, symbol, given)
        from mlops_dagster.stack.deployment_files import load_deployment

        run_pipeline(pipelines.BUILD_MODEL, symbol, by_step, load_deployment(deployment), as_json=as_json, show=_show)


def _show(reports: dict[str, Reports], session: "Session") -> None:
    for made in reports.values():
        model = made[pipelines.TRAINED_MODEL.name]
        print_model(model, f"{model['symbol']}: {model['recipe']} recipe")
        say_decision(made[pipelines.CHAMPION_MODEL.name])
    say_what_follows([made[pipelines.CHAMPION_MODEL.name] for made in reports.values()])


def print_model(model: dict[str, Any], title: str) -> None:
    """Print what the report of a trained model says of it."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in model["metrics"].items():
        table.add_row(name, f"{value:,.6g}")
    table.add_row("model", model["model_uri"])
    table.add_row("MLflow run", model["mlflow_run_id"])
    out.print(table)
