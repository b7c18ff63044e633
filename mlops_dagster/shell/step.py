"""`mlops step`: one step by its name, for an orchestrator whose tasks are steps."""

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
    pipeline: Annotated[
        str | None,
        typer.Option(
            help="The pipeline that runs, for example build_model_pipeline. `--given` then holds the parameters of all "
            "its steps, and what is wrong with any of them is refused before this one works.",
            show_default=False,
        ),
    ] = None,
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
        checked = _checked(name, pipeline, given)
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


def _checked(name: str, pipeline: str | None, text: str) -> dict[str, Any]:
    known = {one.name: one for one in pipelines.PIPELINES}
    if pipeline is not None and pipeline not in known:
        raise refuse("pipeline", pipeline, f"there is no such pipeline; there are {', '.join(known)}.")
    steps = pipelines.STEPS if pipeline is None else {one.name: one for one in known[pipeline].steps}
    if name not in steps:
        raise refuse("step", name, f"there is no such step; there are {', '.join(steps)}.")
    given = _object("given", text, "parameters")
    return grids.check_step(steps[name], given) if pipeline is None else grids.check_run(known[pipeline], given)[name]


def _object(option: str, text: str, of: str) -> dict[str, Any]:
    values = json_given(option, text, f"give an object of {of}.")
    if not isinstance(values, dict):
        raise refuse(option, text, f"give an object of {of}.")
    return values
