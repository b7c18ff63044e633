"""`mlops step`: one step by its name, for an orchestrator whose tasks are steps.

What belongs here: the command. What doesn't: which tools each step takes (`steps/run.py`), and whole pipelines, which
have commands of their own.
"""

from typing import Annotated, Any

import typer

from mlops_dagster import grids, pipelines
from mlops_dagster.errors import json_given, refuse
from mlops_dagster.shell.output import AsJson, DeploymentName, handle_errors, print_json, progress
from mlops_dagster.shell.running import open_session, run_step


def step(
    name: Annotated[str, typer.Argument(help="Which step, for example trained_model.", show_default=False)],
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="Which symbol.", show_default=False)],
    given: Annotated[
        str,
        typer.Option(
            help="The step's parameters as JSON, for example '{\"max_depth\": 80}'. null counts as not given."
        ),
    ] = "{}",
    inputs: Annotated[
        str,
        typer.Option(
            help="The tables that earlier steps of this run have made, as JSON: the `outputs` of their reports. The "
            "step reads these versions, and of a table that isn't among them the current one."
        ),
    ] = "{}",
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Run one step of a pipeline. What it reads has to be in the store.

    Example: mlops step trained_model --symbol GSPC --given '{"max_depth": 80, "n_estimators": 100}'
    """
    with handle_errors(as_json):
        pipelines.check_symbol(symbol)
        checked = _checked(name, given)
        made = _object("inputs", inputs, "tables with version and digest")

        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.steps.inputs import check_pins

        made = check_pins(made)
        with open_session(load_deployment(deployment)) as session:
            report = run_step(session, name, symbol, checked, made)
        for table, its in report["inputs"].items():
            if table not in made:
                progress.print(f"{symbol}  {name}  [dim]read {table} version {its['version']}, which is current[/dim]")
        if as_json:
            print_json({"run_id": session.origin.run_id, **report})


def _checked(name: str, given: str) -> dict[str, Any]:
    if name not in pipelines.STEPS:
        raise refuse("step", name, f"there is no such step; there are {', '.join(pipelines.STEPS)}.")
    return grids.check_step(pipelines.STEPS[name], _object("given", given, "parameters"))


def _object(option: str, text: str, of: str) -> dict[str, Any]:
    values = json_given(option, text, f"give an object of {of}.")
    if not isinstance(values, dict):
        raise refuse(option, text, f"give an object of {of}.")
    return values
