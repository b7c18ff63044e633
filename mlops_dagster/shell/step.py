"""For an orchestrator whose tasks are steps: `mlops manifest` says what there is to run, `mlops step` runs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_dagster.errors import json_given, refuse
from mlops_dagster.shell.output import AsJson, DeploymentName, handle_errors, print_json, progress
from mlops_dagster.shell.partitions import partitions_to_run
from mlops_dagster.shell.running import called, open_session, run_step
from mlops_dagster.spec.project import find_model, model_meant, model_names
from mlops_dagster.spec.steps import pipelines_of, steps_of

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration


def step(
    name: Annotated[
        str,
        typer.Argument(help="Which step, for example stock_price/trained_model.", show_default=False),
    ],
    partition: Annotated[
        str | None,
        typer.Option("--partition", "-p", "--symbol", "-s", help="Which partition of the model.", show_default=False),
    ] = None,
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

    Example: mlops step stock_price/trained_model --symbol GSPC --given '{"max_depth": 80}'
    """
    with handle_errors(as_json):
        of, _, name = name.rpartition("/")
        model = find_model(of) if of else model_meant()
        (which,) = partitions_to_run(model, [] if partition is None else [partition], deployment=deployment)
        checked = _checked(model, name, pipeline, given)
        made = _object("inputs", inputs, "tables with version and digest")

        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.steps.inputs import check_pins

        made = check_pins(made, steps_of(model))
        with open_session(load_deployment(deployment), model) as session:
            report = run_step(session, name, which, checked, made)
        for table, its in report["inputs"].items():
            if table not in made:
                label = f"{called(model, which)}  {name}"
                progress.print(f"{label}  [dim]read {table} version {its['version']}, which is current[/dim]")
        if as_json:
            print_json({"run_id": session.origin.run_id, **report})


def _checked(model: Declaration, name: str, pipeline: str | None, text: str) -> dict[str, Any]:
    known = {one.name: one for one in pipelines_of(model)}
    if pipeline is not None and pipeline not in known:
        raise refuse("pipeline", pipeline, f"there is no such pipeline; there are {', '.join(known)}.")
    steps = steps_of(model)
    if pipeline is not None:
        steps = {one.name: one for one in known[pipeline].steps}
    if name not in steps:
        raise refuse("step", name, f"there is no such step; there are {', '.join(steps)}.")
    given = _object("given", text, "parameters")
    from mlops_dagster.steps.checking import check_run, resolve

    if pipeline is not None:
        return check_run(model, known[pipeline], given)[name]
    resolve(model, name, given)
    return given


def _object(option: str, text: str, of: str) -> dict[str, Any]:
    values = json_given(option, text, f"give an object of {of}.")
    if not isinstance(values, dict):
        raise refuse(option, text, f"give an object of {of}.")
    return values


def manifest(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="Which models. Default: all that are declared here.", show_default=False
        ),
    ] = None,
) -> None:
    """Print the pipelines, their steps and their parameters in JSON Schema: from it Airflow's project makes its DAGs.

    Example: mlops manifest > airflow/include/manifest.json
    """
    from mlops_dagster.manifest import manifest as made

    with handle_errors(as_json=False):
        print_json(made(find_model(one) for one in models or model_names()))
