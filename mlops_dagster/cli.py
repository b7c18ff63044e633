"""`mlops`: the steps from a shell, and what other orchestrators' tasks call.

Exit status: 0 done, 1 the work failed, 2 a parameter or setting was refused before any work, 130/143 stopped.
"""

import io
import os
import shlex
import signal
import sys
import threading
from functools import partial
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mlops_dagster import __version__, pipelines
from mlops_dagster.gc_settings import collect_rarely
from mlops_dagster.shell import (
    bundle,
    cache,
    champion,
    deployments,
    forecast,
    launch,
    parity,
    report,
    search,
    serve,
    ui,
)
from mlops_dagster.shell import step as one_step
from mlops_dagster.shell.calling import (
    Caller,
    Environment,
    Secrets,
    apply_caller_options,
    plain_arguments,
    shell_origin,
)
from mlops_dagster.shell.output import (
    AllowLeaks,
    AsJson,
    BeatPersistence,
    DeploymentName,
    EachSymbol,
    End,
    Horizon,
    Margin,
    PricePath,
    RandomState,
    Recipe,
    Sha256,
    Source,
    Start,
    Symbols,
    TestSize,
    handle_errors,
    open_tracker,
    option,
    out,
    price_parameters,
    print_json,
    progress,
    run_steps,
    say_next,
    shell_tracker,
)
from mlops_dagster.stack.files import said_by_the_disk

app = typer.Typer(
    name="mlops",
    suggest_commands=False,  # click does it, too
    help="Train scikit-learn models on daily prices. Every command runs the same steps as the Dagster assets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def build_model(
    symbol: Symbols,
    max_depth: Annotated[int | None, option("max_depth")] = None,
    n_estimators: Annotated[int | None, option("n_estimators")] = None,
    min_samples_leaf: Annotated[int | None, option("min_samples_leaf")] = None,
    min_samples_split: Annotated[int | None, option("min_samples_split")] = None,
    max_features: Annotated[float | None, option("max_features")] = None,
    bootstrap: Annotated[bool | None, option("bootstrap")] = None,
    random_state: RandomState = None,
    recipe: Recipe = "honest",
    horizon: Horizon = None,
    test_size: TestSize = None,
    source: Source = None,
    path: PricePath = None,
    sha256: Sha256 = None,
    start: Start = None,
    end: End = None,
    margin: Margin = None,
    beat_persistence: BeatPersistence = None,
    allow_leaks: AllowLeaks = None,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Build a model: prices, training set, trained model, champion (build_model_pipeline).

    Example: mlops build-model --symbol GSPC --max-depth 80 --n-estimators 100
    """
    forest = {
        "max_depth": max_depth,
        "n_estimators": n_estimators,
        "min_samples_leaf": min_samples_leaf,
        "min_samples_split": min_samples_split,
        "max_features": max_features,
        "bootstrap": bootstrap,
        "random_state": random_state,
    }
    rules = {"margin": margin, "beat_persistence": beat_persistence, "allow_leaks": allow_leaks}
    split = {"recipe": recipe, "horizon": horizon, "test_size": test_size}
    with handle_errors(as_json):
        for one in symbol:
            pipelines.check_symbol(one)
        pipelines.check_parameters(pipelines.TRAINING_SET.parameters, split)
        pipelines.resolve_forest(recipe, forest)
        pipelines.check_parameters(pipelines.GATE, rules)

        from mlops_dagster import steps
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.store import store_of

        settings = load_deployment(deployment)
        tracker = shell_tracker(settings)
        where = price_parameters(
            settings, symbol, {"source": source, "path": path, "sha256": sha256, "start": start, "end": end}
        )
        store = store_of(settings)
        origin = shell_origin()
        each = EachSymbol(symbol)
        with steps.training_engine(settings) as engine:
            tracked: Any = {"store": store, "tracker": tracker, "origin": origin}

            def build(one: str) -> dict[str, Any]:
                calls = {
                    "prices": partial(steps.prices, one, where, store=store, limits=settings.limits),
                    "training_set": partial(steps.training_set, one, split, store=store),
                    "trained_model": partial(steps.trained_model, one, forest, **tracked, engine=engine),
                    "champion_model": partial(steps.champion_model, one, rules, **tracked),
                }
                return run_steps(one, calls, settings, origin)

            reports = each.do(build)

        def show() -> None:
            for made in reports.values():
                _print_model(made["trained_model"])
                champion.say_decision(made["champion_model"])
            champion.say_what_follows([made["champion_model"] for made in reports.values()])

        each.say(as_json, {"pipeline": pipelines.BUILD_MODEL.name, "run_id": origin.run_id, "symbols": reports}, show)


app.command()(champion.promote)
app.command()(champion.rollback)
app.command()(forecast.forecast)
app.command()(serve.serve)
app.command("search-model")(search.search_model)
app.command("cluster-search-model")(search.cluster_search_model)
app.command()(one_step.step)
app.command()(report.report)


@app.command()
def init(deployment: DeploymentName = None, as_json: AsJson = False) -> None:
    """Make the state folder ready: MLflow's database, Dagster's home, the symbols as partitions."""
    with handle_errors(as_json):
        from mlops_dagster.stack.deployment_files import load_deployment

        settings = load_deployment(deployment)
        with progress.status("MLflow's database"):
            open_tracker(settings).connect()
        with progress.status("Dagster's home"):
            dagster_home = ui.prepare_dagster(settings)
        if as_json:
            print_json({"home": str(settings.home), "dagster_home": str(dagster_home), "symbols": settings.symbols})
        else:
            export = f"export DAGSTER_HOME={shlex.quote(str(dagster_home))}"
            out.print(f"Ready: {settings.home}\nFor Dagster's own commands: {export}", markup=False)
            say_next("mlops build-model --symbol GSPC, or mlops ui")


app.command()(ui.ui)
app.command()(launch.launch)
app.command()(parity.parity)
app.add_typer(cache.app, name="cache")
app.add_typer(deployments.app, name="deployments")
app.command("databricks-bundle")(bundle.databricks_bundle)


@app.callback(invoke_without_command=True)
def _before_the_command(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    environment: Environment = None,
    secrets: Secrets = None,
    caller: Caller = None,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit
    with handle_errors(as_json=False):
        apply_caller_options(environment, secrets, caller)


def _print_model(model: dict[str, Any]) -> None:
    table = Table(title=f"{model['symbol']}: {model['recipe']} recipe", title_justify="left", show_header=False)
    for name, value in model["metrics"].items():
        table.add_row(name, f"{value:,.6g}")
    table.add_row("model", model["model_uri"])
    table.add_row("MLflow run", model["mlflow_run_id"])
    out.print(table)


def main() -> None:
    """Run the command line; a polite kill ends the MLflow run as KILLED instead of leaving it open."""
    if threading.current_thread() is threading.main_thread():  # not where a Databricks job runs it in another
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    collect_rarely()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr; a file's name may be no UTF-8
    try:
        try:
            app(args=plain_arguments(sys.argv[1:]))
        finally:
            sys.stdout.flush()  # at Python's own end it would be too late for a sentence
    except OSError as error:
        said = said_by_the_disk(error)
        if said is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where it is the output that can't be written
        progress.print("[bold red]OSError[/bold red]", escape(said))
        sys.exit(1)
    except SystemExit as exiting:
        if exiting.code:  # Databricks takes the very exception for a failure, even with status 0
            raise


if __name__ == "__main__":
    main()
