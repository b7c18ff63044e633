"""The commands of models: `mlops build-model churn`, their options made from the declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from typer.core import TyperGroup

from mlops_dagster.errors import ParameterError, refuse
from mlops_dagster.shell.calling import flags_of, plain_arguments
from mlops_dagster.shell.options import takes, with_grid
from mlops_dagster.shell.output import AsJson, DeploymentName, EachSymbol, handle_errors
from mlops_dagster.shell.partitions import partitions_in, partitions_to_run
from mlops_dagster.shell.running import Reports, open_session, outputs_of, run_pipeline, run_steps, say_step
from mlops_dagster.shell.serve import Host, Port, of_declared, serve_champion
from mlops_dagster.shell.showing import show_decisions, show_model, show_plans, show_predictions, show_search
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import NAME, Declaration
from mlops_dagster.spec.parameters import Pipeline
from mlops_dagster.spec.project import find_model, model_meant, model_names

if TYPE_CHECKING:
    from mlops_dagster.session import Session
    from mlops_dagster.steps import StepReport

STOPPED = "Stopped. What was fitted is kept: the same command goes on from there."
_TAKEN = {"-d", "-g", "-h", "-p"}
Partition = Annotated[list[str], typer.Option()]  # its names are the declaration's, see `_command`
AllPartitions = Annotated[bool, typer.Option("--all", help="All partitions that there are.")]
PartitionsFile = Annotated[
    Path | None,
    typer.Option("--partitions-file", help="A file of partitions, one a line; or -.", show_default=False),
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Only say what the search would do.")]
Master = Annotated[
    str | None,
    typer.Option(
        help="Which Spark: local[2], spark://host:7077, sc://host:15002, ... Default: as the deployment says.",
        show_default=False,
    ),
]


class Commands(TyperGroup):
    """The commands; one of :data:`OF_MODELS` is that of the model whose name stands behind it, or the model meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and make it from the declaration if a model is named."""
        command, *rest = args
        if command in OF_MODELS:
            with handle_errors("--json" in rest):
                named = bool(rest) and NAME.fullmatch(rest[0]) is not None
                declaration = find_model(rest[0]) if named else model_meant()
                flags = flags_of(one for pipeline in names.pipelines_of(declaration) for one in pipeline.parameters)
                arguments = plain_arguments(rest[1:] if named else rest, flags)
                return f"{command} {rest[0]}" if named else command, _command(command, declaration, named), arguments
        return super().resolve_command(ctx, args)


def _command(name: str, declaration: Declaration, named: bool) -> click.Command:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    run = OF_MODELS[name](declaration)
    signature = inspect.signature(run, eval_str=True)
    option = names.partition_option(declaration)
    left = []
    for one in signature.parameters.values():
        if one.name == "partition" and declaration.partitions is not None:
            said = f"Which {declaration.partitions.name}, or a pattern of several as 'A*'. Repeat it for more."
            short = {f"-{declaration.partitions.name[0]}"} - _TAKEN  # as in -s GSPC
            option_names = dict.fromkeys((f"--{option}".replace("_", "-"), "--partition", "-p", *short))
            left.append(
                one.replace(annotation=Annotated[list[str], typer.Option(*option_names, help=said, show_default=False)])
            )
        elif option is not None or one.name not in ("partition", "all_partitions", "partitions_file"):
            left.append(one)
    run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    if not named:
        there = ", ".join(model_names())
        run.__doc__ = f"{run.__doc__}\n\nMODEL is one of {there}. Default: {declaration.name}."
    app.command(name, options_metavar="[OPTIONS]" if named else "[MODEL] [OPTIONS]")(run)
    return typer.main.get_command(app)


def _pipeline(declaration: Declaration, ending: str, part: str) -> Pipeline:
    for one in names.pipelines_of(declaration):
        if one.name == declaration.named(ending):
            return one
    raise refuse(
        "model", declaration.name, f"its declaration has no `{part}`: add it to {declaration.folder}/defs.yaml."
    )


def _running(
    ending: str, part: str, about: str, show: Callable[[Declaration, dict[str, Reports]], None]
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
            partitions_file: PartitionsFile = None,
            master: Master = None,
            plan: PlanOnly = False,
            deployment: DeploymentName = None,
            as_json: AsJson = False,
        ) -> None:
            with handle_errors(as_json, STOPPED if part == "search" else "Stopped."):
                from mlops_dagster.steps.checking import check_run

                by_step = check_run(declaration, pipeline, with_grid(given))
                chosen = [*partition, *partitions_in(partitions_file)]
                which = partitions_to_run(declaration, chosen, all_partitions, deployment)
                from mlops_dagster.stack.deployment_files import load_deployment

                settings = load_deployment(deployment)
                if master is not None:
                    settings.spark = _spark_settings(settings, master)
                if plan:
                    _plan(declaration, pipeline, which, by_step, settings, as_json)
                else:
                    shown = partial(show, declaration)
                    run_pipeline(pipeline, which, by_step, settings, declaration, as_json=as_json, show=shown)

        signature = inspect.signature(run, eval_str=True)
        without = {"search": set() if pipeline.chooses else {"master"}}.get(part, {"master", "plan"})
        left = [one for one in signature.parameters.values() if one.name not in without]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        run.__doc__ = about.format(model=declaration.name, pipeline=pipeline.name)
        return run

    return of


def _plan(
    declaration: Declaration,
    pipeline: Pipeline,
    partitions: list[str],
    given: Mapping[str, dict[str, Any]],
    settings: Any,
    as_json: bool,
) -> None:
    from mlops_dagster.steps.search import plan_search

    *before, search = pipeline.steps
    each = EachSymbol(partitions)
    with open_session(settings, declaration) as session:

        def plan(partition: str) -> Any:
            inputs = outputs_of(run_steps(session, before, partition, given))
            return plan_search(declaration, partition, given[search.name], store=session.store, inputs=inputs)

        plans = each.do(plan)
    said = {one: plan.as_dict() for one, plan in plans.items()}
    each.say(as_json, said, partial(show_plans, declaration, plans))


def _spark_settings(settings: Any, master: str) -> Any:
    """Return another Spark in place of the deployment's."""
    try:
        return type(settings.spark).model_validate({**settings.spark.model_dump(), "master": master})
    except ValueError:
        # It isn't repeated, since a Connect address may hold a token.
        raise ParameterError(
            "--master: give local[N], local[*], spark://host:port or sc://host:port. YARN and Kubernetes: start the "
            "session there with their own tools, and use it by spark.master=active."
        ) from None


# ------------------------------------------------------------------------------------------------------ the champion


def _promote(declaration: Declaration) -> Callable[..., None]:
    step = names.steps_of(declaration)[names.CHAMPION_MODEL]
    alone = Pipeline(step.name, step.description, (step,))

    @takes(step.parameters, alone.explain)
    def promote(
        given: dict[str, Any],
        partition: Partition = [],  # noqa: B006 - as typer wants it
        all_partitions: AllPartitions = False,
        partitions_file: PartitionsFile = None,
        deployment: DeploymentName = None,
        as_json: AsJson = False,
    ) -> None:
        with handle_errors(as_json):
            names.resolve(declaration, step.name, given)
            chosen = [*partition, *partitions_in(partitions_file)]
            which = partitions_to_run(declaration, chosen, all_partitions, deployment)
            deciding = partial(_promoted, given)
            _decide(declaration, which, deciding, names.TRAINED_MODEL, deployment, as_json)

    promote.__doc__ = f"Let the newest model of {declaration.name} become the champion if the gate lets it."
    return promote


def _promoted(given: dict[str, Any], session: Session, partition: str) -> StepReport:
    return session.run(names.CHAMPION_MODEL, partition, given)


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
                    plots=session.plots,
                )

            _decide(declaration, which, roll_back, names.CHAMPION_MODEL, deployment, as_json)

    rollback.__doc__ = f"Bring back the champion of {declaration.name} before the present one."
    return rollback


def _decide(
    declaration: Declaration,
    partitions: list[str],
    deciding: Callable[[Session, str], StepReport],
    needs: str,
    deployment: str | None,
    as_json: bool,
) -> None:
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.steps.champion import called

    settings = load_deployment(deployment)
    each = EachSymbol(partitions)
    with open_session(settings, declaration) as session:

        def decide(one: str) -> dict[str, Any]:
            if session.store.current(needs, one) is None:
                who = called(one, declaration)
                others = ", ".join(session.store.symbols(needs)) or "none"
                there = f"; models there: {others}" if declaration.partitions else ""
                cure = (
                    f"no model of it was built in the home {settings.home} (store {session.store.root}{there}). Build "
                    f"one: mlops build-model {who.options}. Or set MLOPS_HOME to the home that has it."
                )
                raise refuse("model", who.name, cure)
            return say_step(session, names.CHAMPION_MODEL, one, partial(deciding, session, one))

        reports = each.do(decide)
    each.say(as_json, reports, partial(show_decisions, declaration, reports))


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
        show_model,
    ),
    "search-model": _running(
        "search_model_pipeline", "search", "Search a grid of parameters of {model} ({pipeline}).", show_search
    ),
    "cluster-search-model": _running(
        "cluster_search_model_pipeline",
        "search",
        "Search a grid of parameters of {model} on the deployment's Spark ({pipeline}).",
        show_search,
    ),
    "predict": _running(
        "predict_pipeline", "predictions", "Predict with the champion of {model} ({pipeline}).", show_predictions
    ),
    "promote": _promote,
    "rollback": _rollback,
    "serve": _served,
}


def stub(name: str) -> Callable[[], None]:
    """Return what `mlops --help` shows of a command of models; its real one is made when a model is known."""

    def command() -> None:
        """Never called."""

    command.__doc__ = _ABOUT[name]
    return command


_ABOUT = {
    "build-model": "Build a model: data, training set, trained model, champion (build_model_pipeline).",
    "search-model": "Search a grid of parameters on this machine (search_model_pipeline).",
    "cluster-search-model": "Search a grid of parameters on Spark (cluster_search_model_pipeline).",
    "predict": "Predict with the champion, and say how good earlier predictions were (predict_pipeline).",
    "promote": "Let the newest model become the champion if the gate lets it (the step champion_model).",
    "rollback": "Bring back the champion before the present one.",
    "serve": "Answer HTTP requests with the champion, by MLflow's protocol.",
}
