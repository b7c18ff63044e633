"""`mlops promote` and `mlops rollback`: who is champion."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from mlops_dagster import pipelines
from mlops_dagster.errors import refuse
from mlops_dagster.shell.calling import shell_origin
from mlops_dagster.shell.output import (
    AllowLeaks,
    AsJson,
    BeatPersistence,
    DeploymentName,
    EachSymbol,
    Margin,
    Symbols,
    handle_errors,
    out,
    run_step,
    say_next,
    shell_tracker,
)


def promote(
    symbol: Symbols,
    margin: Margin = None,
    beat_persistence: BeatPersistence = None,
    allow_leaks: AllowLeaks = None,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Let the newest model become the champion if it is better than the one before (the step champion_model).

    Example: mlops promote --symbol GSPC --margin 0.01
    """
    given = {"margin": margin, "beat_persistence": beat_persistence, "allow_leaks": allow_leaks}
    with handle_errors(as_json):
        pipelines.check_parameters(pipelines.GATE, given)
        from mlops_dagster import steps

        _decide(symbol, lambda one: partial(steps.champion_model, one, given), "trained_model", deployment, as_json)


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

        _decide(symbol, lambda one: partial(steps.rollback, one, version), "champion_model", deployment, as_json)


def say_decision(report: dict[str, Any]) -> None:
    """Print who is champion, and why."""
    champion = report["champion"]
    who = f"version {champion} is champion" if champion else "there is no champion"
    out.print(f"{report['symbol']}: {who}. {report['reason']}", markup=False)


def say_what_follows(decisions: list[dict[str, Any]]) -> None:
    """Say what can be done after decisions: forecast, or look for a better model."""
    if champions := [one["symbol"] for one in decisions if one["champion"]]:
        say_next(f"mlops forecast --symbol {champions[0]}. All models: mlops report")
    elif decisions:
        say_next(f"mlops search-model --symbol {decisions[0]['symbol']} looks for better parameters")


def _decide(
    symbols: list[str], deciding: Callable[[str], Callable[..., Any]], needs: str, deployment: str | None, as_json: bool
) -> None:
    for one in symbols:
        pipelines.check_symbol(one)
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.stack.store import store_of

    settings = load_deployment(deployment)
    store = store_of(settings)
    tools: dict[str, Any] = {
        "store": store,
        "tracker": shell_tracker(settings),
        "origin": shell_origin(),
    }

    def decide(one: str) -> dict[str, Any]:
        if store.current(needs, one) is None:
            others = ", ".join(store.symbols(needs)) or "none"
            cure = (
                f"no model of it was built in the home {settings.home} (store {store.root}; symbols with models there: "
                f"{others}). Build one: mlops build-model --symbol {one}. Or set MLOPS_HOME to the home that has it."
            )
            raise refuse("symbol", one, cure)
        return run_step(one, "champion_model", partial(deciding(one), **tools), settings, tools["origin"])

    each = EachSymbol(symbols)
    reports = each.do(decide)

    def show() -> None:
        for report in reports.values():
            say_decision(report)
        say_what_follows(list(reports.values()))

    each.say(as_json, reports, show)
