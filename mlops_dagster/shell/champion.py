"""`mlops promote` and `mlops rollback`: who is champion.

What belongs here: options in, one call per symbol, the decision out. What doesn't: deciding (`steps/promotion.py`).
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from mlops_dagster import pipelines
from mlops_dagster.shell.calling import shell_origin
from mlops_dagster.shell.output import (
    AllowLeaks,
    AsJson,
    BeatPersistence,
    DeploymentName,
    Margin,
    Symbols,
    errors_said_well,
    out,
    print_json,
    run_step,
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
    with errors_said_well(as_json):
        pipelines.check_parameters(pipelines.GATE, given)
        from mlops_dagster import steps

        _decide(symbol, lambda one: partial(steps.champion_model, one, given), "trained_model", deployment, as_json)


def rollback(
    symbol: Symbols,
    version: Annotated[
        str | None,
        typer.Option("--to", help="A version that was champion before. Not given: the last.", show_default=False),
    ] = None,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Bring the champion before the present one back.

    Example: mlops rollback --symbol GSPC
    """
    with errors_said_well(as_json):
        from mlops_dagster import steps

        _decide(symbol, lambda one: partial(steps.rollback, one, version), "champion_model", deployment, as_json)


def say_decision(report: dict[str, Any]) -> None:
    """Print who is champion, and why."""
    champion = report["champion"]
    who = f"version {champion} is champion" if champion else "there is no champion"
    out.print(f"{report['symbol']}: {who}. {report['reason']}", soft_wrap=True, markup=False)


def _decide(
    symbols: list[str], deciding: Callable[[str], Callable[..., Any]], needs: str, deployment: str | None, as_json: bool
) -> None:
    for one in symbols:
        pipelines.check_symbol(one)
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.stack.store import store_of

    settings = load_deployment(deployment)
    store = store_of(settings)
    for one in symbols:
        if store.current(needs, one) is None:
            others = ", ".join(store.symbols(needs)) or "none"
            cure = (
                f"no model of it was built in the home {settings.home} (store {store.root}; symbols with models there: "
                f"{others}). Build one: mlops build-model --symbol {one}. Or set MLOPS_HOME to the home that has it."
            )
            raise pipelines.refuse("symbol", one, cure)
    tools: dict[str, Any] = {
        "store": store,
        "tracker": shell_tracker(settings),
        "origin": shell_origin(),
    }
    reports = {
        one: run_step(one, "champion_model", partial(deciding(one), **tools), settings, tools["origin"])
        for one in symbols
    }
    if as_json:
        print_json(reports)
        return
    for one in symbols:
        say_decision(reports[one])
