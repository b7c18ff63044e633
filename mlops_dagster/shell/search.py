"""`mlops search-model` and `mlops cluster-search-model`: searches of a grid, on this machine or on Spark."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mlops_dagster import pipelines
from mlops_dagster.errors import ParameterError
from mlops_dagster.shell.options import as_options, takes
from mlops_dagster.shell.output import AsJson, DeploymentName, EachSymbol, Symbols, handle_errors, out, say_next
from mlops_dagster.shell.running import (
    Reports,
    checked,
    open_session,
    outputs_of,
    price_parameters,
    run_pipeline,
    run_steps,
)

if TYPE_CHECKING:
    from mlops_dagster.session import Session

STOPPED = "Stopped. Trees that were grown are kept: the same command goes on from there."
PlanOnly = Annotated[bool, typer.Option("--plan", help="Only say what the search would do.")]
Master = Annotated[
    str | None,
    typer.Option(
        help="Which Spark: local[2], spark://host:7077, sc://host:15002, ... Default: as the deployment says.",
        show_default=False,
    ),
]


@takes(pipelines.SEARCH_MODEL.parameters)
def search_model(
    symbol: Symbols,
    given: dict[str, Any],
    plan: PlanOnly = False,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Search a grid of hyper-parameters on this machine (search_model_pipeline).

    Example: mlops search-model --symbol GSPC --grid max_depth=4,8 --grid n_estimators=50:200:50
    """
    _search(pipelines.SEARCH_MODEL, symbol, given, plan, deployment, as_json)


@takes(pipelines.CLUSTER_SEARCH_MODEL.parameters)
def cluster_search_model(
    symbol: Symbols,
    given: dict[str, Any],
    master: Master = None,
    plan: PlanOnly = False,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Search a grid of hyper-parameters on Spark (cluster_search_model_pipeline).

    Example: mlops cluster-search-model --symbol GSPC --preset small --master 'local[2]'
    """
    _search(pipelines.CLUSTER_SEARCH_MODEL, symbol, given, plan, deployment, as_json, master)


def _search(
    pipeline: pipelines.Pipeline,
    symbols: list[str],
    given: dict[str, Any],
    plan: bool,
    deployment: str | None,
    as_json: bool,
    master: str | None = None,
) -> None:
    with handle_errors(as_json, STOPPED):
        by_step = checked(pipeline, symbols, given)
        from mlops_dagster.stack.deployment_files import load_deployment

        settings = load_deployment(deployment)
        if master is not None:
            settings.spark = _spark_settings(settings, master)
        if plan:
            _plan(pipeline, symbols, by_step, settings, as_json)
        else:
            run_pipeline(pipeline, symbols, by_step, settings, as_json=as_json, show=_show)


def _plan(
    pipeline: pipelines.Pipeline, symbols: list[str], given: dict[str, Any], settings: Any, as_json: bool
) -> None:
    from mlops_dagster import steps

    *before, search = pipeline.steps
    each = EachSymbol(symbols)
    with open_session(settings) as session:

        def plan(symbol: str) -> Any:
            inputs = outputs_of(run_steps(session, before, symbol, given))
            return steps.plan_search(symbol, given[search.name], store=session.store, inputs=inputs)

        given[pipelines.PRICES.name] = price_parameters(settings, symbols, given[pipelines.PRICES.name])
        plans = each.do(plan)
    each.say(as_json, {one: plan.as_dict() for one, plan in plans.items()}, partial(_print_plans, plans))


def _print_plans(plans: dict[str, Any]) -> None:
    for symbol, plan in plans.items():
        out.print(f"{symbol}: {plan}", markup=False)
    say_next("the same command without --plan")


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


def _show(reports: dict[str, Reports], session: "Session") -> None:
    searches = [list(made.values())[-1] for made in reports.values()]
    for search in searches:
        _print_search(search)
    for search in searches[:1]:
        say_next(f"mlops build-model --symbol {search['symbol']} {as_options(search['best_parameters'])}")


def _print_search(report: dict[str, Any]) -> None:
    work = report["work"]
    table = Table(title=f"{report['symbol']}: {report['recipe']} recipe", title_justify="left", show_header=False)
    for name, value in report["best_parameters"].items():
        table.add_row(name, str(value))
    table.add_row("score", f"{report['metrics']['best_score']:.6g} ({report['scoring']})")
    table.add_row("scored on", report["cv"])
    failed = f", {report['failed_candidates']:,} failed" if report["failed_candidates"] else ""
    table.add_row("candidates", f"{report['candidates']:,}{failed}")
    grown = f"{work['trees_grown']:,} grown, {work['trees_reused']:,} from the cache, {work['trees_asked']:,} asked for"
    table.add_row("trees", grown)
    table.add_row("MLflow run", report["mlflow_run_id"])
    out.print(table)
