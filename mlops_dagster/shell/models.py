"""The commands of declared models: `mlops build-model churn`, its options made from the declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from rich.table import Table
from typer.core import TyperGroup

from mlops_dagster.errors import refuse
from mlops_dagster.shell.build_model import print_model
from mlops_dagster.shell.calling import flags_of, plain_arguments
from mlops_dagster.shell.champion import say_decision
from mlops_dagster.shell.options import as_options, takes, with_grid
from mlops_dagster.shell.output import AsJson, DeploymentName, EachSymbol, handle_errors, out, say_next
from mlops_dagster.shell.running import Reports, called, open_session, run_pipeline, say_step
from mlops_dagster.shell.search import STOPPED
from mlops_dagster.shell.serve import Host, Port, of_declared, serve_champion
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import NAME, Declaration
from mlops_dagster.spec.parameters import Pipeline
from mlops_dagster.spec.project import find_model, model_names

if TYPE_CHECKING:
    from mlops_dagster.session import Session
    from mlops_dagster.steps import StepReport

Partition = Annotated[
    list[str],
    typer.Option("--partition", "-p", help="Which partition. Repeat it for several.", show_default=False),
]
AllPartitions = Annotated[bool, typer.Option("--all", help="All partitions that there are.")]


class Commands(TyperGroup):
    """The commands; behind one of :data:`OF_MODELS` may stand a declared model's name, and then it is that model's."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and make it from the declaration if a model is named."""
        command, *rest = args
        if command in OF_MODELS and rest and NAME.fullmatch(rest[0]):
            with handle_errors("--json" in rest):
                declaration = find_model(rest[0])
                flags = flags_of(one for pipeline in names.pipelines_of(declaration) for one in pipeline.parameters)
                return f"{command} {rest[0]}", _command(command, declaration), plain_arguments(rest[1:], flags)
        return super().resolve_command(ctx, args)


def _command(name: str, declaration: Declaration) -> click.Command:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    run = OF_MODELS[name](declaration)
    signature = inspect.signature(run, eval_str=True)
    if declaration.partitions is None:
        left = [one for one in signature.parameters.values() if one.name not in ("partition", "all_partitions")]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    app.command(name)(run)
    return typer.main.get_command(app)


def _pipeline(declaration: Declaration, ending: str, part: str) -> Pipeline:
    for one in names.pipelines_of(declaration):
        if one.name == f"{declaration.name}_{ending}":
            return one
    raise refuse(
        "model", declaration.name, f"its declaration has no `{part}`: add it to {declaration.folder}/defs.yaml."
    )


def _running(
    ending: str, part: str, about: str, show: Callable[[Declaration, dict[str, Reports], Session], None]
) -> Callable[[Declaration], Callable[..., None]]:
    """Return what makes the command that runs a pipeline of a model."""

    def of(declaration: Declaration) -> Callable[..., None]:
        with handle_errors(as_json=False):
            pipeline = _pipeline(declaration, ending, part)

        @takes(pipeline.parameters, pipeline.explain)
        def run(
            given: dict[str, Any],
            partition: Partition = [],  # noqa: B006 - as typer wants it
            all_partitions: AllPartitions = False,
            deployment: DeploymentName = None,
            as_json: AsJson = False,
        ) -> None:
            with handle_errors(as_json, STOPPED if part == "search" else "Stopped."):
                from mlops_dagster.steps.declared.checking import check_run

                by_step = check_run(declaration, pipeline, with_grid(given))
                which = partitions_to_run(declaration, partition, all_partitions, deployment)
                from mlops_dagster.stack.deployment_files import load_deployment

                settings = load_deployment(deployment)
                shown = partial(show, declaration)
                run_pipeline(pipeline, which, by_step, settings, as_json=as_json, show=shown, model=declaration)

        run.__doc__ = about.format(model=declaration.name, pipeline=pipeline.name)
        return run

    return of


def partitions_to_run(
    declaration: Declaration, chosen: list[str], everything: bool | None = None, deployment: str | None = None
) -> list[str]:
    """Return for which partitions a command runs: those that were chosen, or all; ``all`` if the model has none.

    Parameters
    ----------
    everything : bool, optional
        What the option ``--all`` says. Not given: the command has none.
    deployment : str, optional
        Its name: it may say where the rows are.

    Raises
    ------
    ParameterError
        If it has some and none was chosen, or one was chosen and it has none.
    """
    if declaration.partitions is None:
        if chosen:
            raise refuse("partition", chosen[0], f"{declaration.name} has one model for all rows; leave it out.")
        return [names.ALL]
    if everything or not chosen:
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.table_sources import partitions_of

        there = partitions_of(declaration, given=load_deployment(deployment).data_parameters(declaration)) or []
        if everything and not chosen:
            return there
        or_all = "" if everything is None else ", or --all"
        some = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "")
        raise refuse("partition", chosen or None, f"say which --partition{or_all}; there are {some or 'none'}.")
    return chosen


# -------------------------------------------------------------------------------------------------------- what is shown


def _option(partition: str) -> str:
    return "" if partition == names.ALL else f" --partition {partition}"


def _show_model(declaration: Declaration, reports: dict[str, Reports], session: Session) -> None:
    for partition, made in reports.items():
        print_model(made[names.TRAINED_MODEL], called(declaration, partition))
        say_decision(made[names.CHAMPION_MODEL], called(declaration, partition))
    for partition, made in list(reports.items())[:1]:
        champion = made[names.CHAMPION_MODEL]["champion"]
        what = "predict" if champion and declaration.predictions else "search-model" if declaration.search else None
        if what:
            say_next(f"mlops {what} {declaration.name}{_option(partition)}")


def _show_search(declaration: Declaration, reports: dict[str, Reports], session: Session) -> None:
    for partition, made in reports.items():
        report = made[names.GRID_SEARCH_RESULTS]
        table = Table(title=called(declaration, partition), title_justify="left", show_header=False)
        for name, value in report["best_parameters"].items():
            table.add_row(name, str(value))
        table.add_row("score", f"{report['metrics']['best_score']:.6g} ({report['scoring']})")
        failed = f", {report['failed_candidates']:,} failed" if report["failed_candidates"] else ""
        table.add_row("candidates", f"{report['candidates']:,}{failed}")
        table.add_row("fitted", "on Spark" if report["engine"] == names.SPARK else "on this machine")
        table.add_row("shared", report["shared"])
        table.add_row("MLflow run", report["mlflow_run_id"])
        out.print(table)
    for partition, made in list(reports.items())[:1]:
        best = as_options(made[names.GRID_SEARCH_RESULTS]["best_parameters"])
        say_next(f"mlops build-model {declaration.name}{_option(partition)} {best}")


def _show_predictions(declaration: Declaration, reports: dict[str, Reports], session: Session) -> None:
    for partition, made in reports.items():
        report = made[names.PREDICTIONS]
        which = "It is" if report["rows_predicted"] == 1 else "They are"
        said = f"{report['summary']} {which} by version {report['champion']}, in {report['table']['uri']}"
        out.print(f"{called(declaration, partition)}: {said}", markup=False)
        if drift := report.get("drift_summary"):
            out.print(drift, markup=False)
        if names.PREDICTION_QUALITY not in made:
            cure = "give key, the columns that identify a row, in the declaration."
            out.print(f"How good they are can't be told, since nothing says which row is which: {cure}", markup=False)
        elif summary := made[names.PREDICTION_QUALITY].get("summary"):
            out.print(summary, markup=False)


# ------------------------------------------------------------------------------------------------------ the champion


def _promote(declaration: Declaration) -> Callable[..., None]:
    step = names.steps_of(declaration)[names.CHAMPION_MODEL]
    alone = Pipeline(step.name, step.description, (step,))

    @takes(step.parameters, alone.explain)
    def promote(
        given: dict[str, Any],
        partition: Partition = [],  # noqa: B006 - as typer wants it
        all_partitions: AllPartitions = False,
        deployment: DeploymentName = None,
        as_json: AsJson = False,
    ) -> None:
        with handle_errors(as_json):
            names.resolve(declaration, step.name, given)
            which = partitions_to_run(declaration, partition, all_partitions, deployment)
            _decide(declaration, which, lambda session, one: session.run(step.name, one, given), deployment, as_json)

    promote.__doc__ = f"Let the newest model of {declaration.name} become the champion if the gate lets it."
    return promote


def _rollback(declaration: Declaration) -> Callable[..., None]:
    def rollback(
        version: Annotated[
            str | None,
            typer.Option("--to", help="A version that was champion before. Default: the last.", show_default=False),
        ] = None,
        partition: Partition = [],  # noqa: B006 - as typer wants it
        deployment: DeploymentName = None,
        as_json: AsJson = False,
    ) -> None:
        with handle_errors(as_json):
            which = partitions_to_run(declaration, partition, deployment=deployment)
            from mlops_dagster import steps

            def roll_back(session: Session, one: str) -> StepReport:
                return steps.rollback(
                    one,
                    version,
                    store=session.store,
                    tracker=session.tracker,
                    origin=session.origin,
                    model=declaration,
                )

            _decide(declaration, which, roll_back, deployment, as_json)

    rollback.__doc__ = f"Bring back the champion of {declaration.name} before the present one."
    return rollback


def _decide(
    declaration: Declaration,
    partitions: list[str],
    deciding: Callable[[Session, str], StepReport],
    deployment: str | None,
    as_json: bool,
) -> None:
    from mlops_dagster.stack.deployment_files import load_deployment

    each = EachSymbol(partitions)
    with open_session(load_deployment(deployment), declaration) as session:
        reports = each.do(lambda one: say_step(session, names.CHAMPION_MODEL, one, partial(deciding, session, one)))

    def show() -> None:
        for partition, report in reports.items():
            say_decision(report, called(declaration, partition))

    each.say(as_json, reports, show)


def _served(declaration: Declaration) -> Callable[..., None]:
    def serve(
        partition: Partition = [],  # noqa: B006 - as typer wants it
        port: Port = 5001,
        host: Host = "127.0.0.1",
        deployment: DeploymentName = None,
    ) -> None:
        with handle_errors(as_json=False):
            which = partitions_to_run(declaration, partition, deployment=deployment)
            if len(which) > 1:
                raise refuse("partition", which, "one champion is served at a port; give one.")
            serve_champion(which[0], declaration, partial(of_declared, declaration), port, host, deployment)

    serve.__doc__ = f"Answer HTTP requests with {declaration.name}'s champion, by MLflow's protocol. Ctrl-C stops it."
    return serve


OF_MODELS: Mapping[str, Callable[[Declaration], Callable[..., None]]] = {
    "build-model": _running(
        "build_model_pipeline",
        "estimator",
        "Build a model of {model}: data, training set, trained model, champion ({pipeline}).",
        _show_model,
    ),
    "search-model": _running(
        "search_model_pipeline", "search", "Search a grid of parameters of {model} ({pipeline}).", _show_search
    ),
    "cluster-search-model": _running(
        "cluster_search_model_pipeline",
        "search",
        "Search a grid of parameters of {model} on the deployment's Spark ({pipeline}).",
        _show_search,
    ),
    "predict": _running(
        "predict_pipeline", "predictions", "Predict with the champion of {model} ({pipeline}).", _show_predictions
    ),
    "promote": _promote,
    "rollback": _rollback,
    "serve": _served,
}


def predict() -> None:
    """Predict with the champion of a declared model: mlops predict NAME (see mlops predict NAME --help)."""
    with handle_errors(as_json=False):
        there = ", ".join(model_names()) or "none yet; make one: mlops new NAME --data FILE --target COLUMN"
        raise refuse("model", None, f"say which: mlops predict NAME. Declared here: {there}.")
