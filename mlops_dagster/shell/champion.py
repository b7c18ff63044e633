"""`mlops promote` and `mlops rollback`: who is champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_dagster import pipelines
from mlops_dagster.errors import refuse
from mlops_dagster.shell.options import takes
from mlops_dagster.shell.output import AsJson, DeploymentName, EachSymbol, Symbols, handle_errors, out, say_next
from mlops_dagster.shell.running import open_session, say_step

if TYPE_CHECKING:
    from mlops_dagster.session import Session
    from mlops_dagster.steps import StepReport


@takes(pipelines.CHAMPION_MODEL.parameters)
def promote(symbol: Symbols, given: dict[str, Any], deployment: DeploymentName = None, as_json: AsJson = False) -> None:
    """Let the newest model become the champion if it is better than the one before (the step champion_model).

    Example: mlops promote --symbol GSPC --margin 0.01
    """
    with handle_errors(as_json):
        pipelines.check_parameters(pipelines.CHAMPION_MODEL.parameters, given)
        _decide(
            symbol,
            lambda session, one: session.run(pipelines.CHAMPION_MODEL.name, one, given),
            "trained_model",
            deployment,
            as_json,
        )


def rollback(
    symbol: Symbols,
    version: Annotated[
        str | None,
        typer.Option("--to", help="A version that was champion before. Default: the last.", show_default=False),
    ] = None,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Bring back the champion before the present one.

    Example: mlops rollback --symbol GSPC
    """
    with handle_errors(as_json):
        from mlops_dagster import steps

        def roll_back(session: Session, one: str) -> StepReport:
            return steps.rollback(one, version, store=session.store, tracker=session.tracker, origin=session.origin)

        _decide(symbol, roll_back, "champion_model", deployment, as_json)


def say_decision(report: Mapping[str, Any], of: str | None = None) -> None:
    """Print who is champion, and why; of a declared model with what people call it."""
    champion = report["champion"]
    who = f"version {champion} is champion" if champion else "there is no champion"
    if not report["promoted"] and report["challenger"] != champion:
        who += f", version {report['challenger']} is kept out"
    out.print(f"{of or report['symbol']}: {who}. {report['reason']}", markup=False)


def say_what_follows(decisions: list[dict[str, Any]]) -> None:
    """Say what can be done after decisions: forecast, or look for a better model."""
    if champions := [one["symbol"] for one in decisions if one["champion"]]:
        say_next(f"mlops forecast --symbol {champions[0]}. All models: mlops report")
    elif decisions:
        say_next(f"mlops search-model --symbol {decisions[0]['symbol']} looks for better parameters")


def _decide(
    symbols: list[str],
    deciding: Callable[[Session, str], StepReport],
    needs: str,
    deployment: str | None,
    as_json: bool,
) -> None:
    for one in symbols:
        pipelines.check_symbol(one)
    from mlops_dagster.stack.deployment_files import load_deployment

    settings = load_deployment(deployment)
    each = EachSymbol(symbols)
    with open_session(settings) as session:
        store = session.store

        def decide(one: str) -> dict[str, Any]:
            if store.current(needs, one) is None:
                others = ", ".join(store.symbols(needs)) or "none"
                cure = (
                    f"no model of it was built in the home {settings.home} (store {store.root}; symbols with models "
                    f"there: {others}). Build one: mlops build-model --symbol {one}. Or set MLOPS_HOME to the home "
                    "that has it."
                )
                raise refuse("symbol", one, cure)
            return say_step(session, pipelines.CHAMPION_MODEL.name, one, partial(deciding, session, one))

        reports = each.do(decide)

    def show() -> None:
        for report in reports.values():
            say_decision(report)
        say_what_follows(list(reports.values()))

    each.say(as_json, reports, show)
