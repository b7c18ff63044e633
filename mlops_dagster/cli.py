"""`mlops`: the steps from a shell, and what other orchestrators' tasks call.

The commands stand in `shell/`. Dagster is imported only by those that are about it, and when they run.

Exit status: 0 done, 1 the work failed, 2 a parameter or setting was refused before any work, 130/143 stopped.
"""

import io
import os
import shlex
import signal
import sys
import threading
from typing import Annotated

import typer
from rich.markup import escape

from mlops_dagster import __version__
from mlops_dagster.process_settings import collect_rarely, wait_quietly
from mlops_dagster.shell import (
    bundle,
    cache,
    check,
    deployments,
    launch,
    models,
    new,
    new_project,
    parity,
    report,
    ui,
)
from mlops_dagster.shell import step as one_step
from mlops_dagster.shell.calling import Caller, Environment, Secrets, apply_caller_options, plain_arguments
from mlops_dagster.shell.output import (
    AsJson,
    DeploymentName,
    handle_errors,
    open_tracker,
    out,
    print_json,
    progress,
    say_next,
)
from mlops_dagster.shell.showing import how_to_begin
from mlops_dagster.stack.files import said_by_the_disk

app = typer.Typer(
    name="mlops",
    cls=models.Commands,
    suggest_commands=False,  # click does it, too
    help="Train scikit-learn models. A command about a model has its name first, as in mlops build-model churn; "
    "without one it means a project's only model, or stock_price, which comes with the package. Commands run the same "
    "steps as Dagster's assets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command()(new.new)
for _name in models.OF_MODELS:
    app.command(_name)(models.stub(_name))
app.command()(check.check)
app.command("new-project")(new_project.new_project)
app.command()(one_step.step)
app.command()(one_step.manifest)
app.command()(report.report)


@app.command()
def init(deployment: DeploymentName = None, as_json: AsJson = False) -> None:
    """Make the state folder ready: MLflow's database, Dagster's home, the partitions that models list."""
    with handle_errors(as_json):
        from mlops_dagster.stack.deployment_files import load_deployment

        settings = load_deployment(deployment)
        with progress.status("MLflow's database"):
            open_tracker(settings).connect()
        with progress.status("Dagster's home"):
            dagster_home = ui.prepare_dagster(settings)
        if as_json:
            print_json({"home": str(settings.home), "dagster_home": str(dagster_home)})
        else:
            export = f"export DAGSTER_HOME={shlex.quote(str(dagster_home))}"
            out.print(f"Ready: {settings.home}\nFor Dagster's own commands: {export}", markup=False)
            say_next(f"{how_to_begin()}, or mlops ui")


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


def main() -> None:
    """Run the command line; a polite kill ends the MLflow run as KILLED instead of leaving it open."""
    if threading.current_thread() is threading.main_thread():  # not where a Databricks job runs it in another
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    collect_rarely()
    wait_quietly()
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
