"""`mlops`: the steps from a shell, and what other orchestrators' tasks call.

What belongs here: options in, one call per step, a readable or a JSON report out. What doesn't: any work of a step,
and Dagster, which `mlops init` and `mlops ui` alone need and import when they run.

Exit status: 0 done, 1 the work failed, 2 a parameter or setting was refused before any work, 130/143 stopped.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlops_dagster import __version__, pipelines

app = typer.Typer(
    name="mlops",
    help="Train scikit-learn models on daily prices. Every command runs the same steps as the Dagster assets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# People read standard output, scripts read it with --json; progress goes to the other stream.
out = Console(highlight=False)
progress = Console(stderr=True, highlight=False)


def _option(name: str) -> Any:
    """Describe an option with the words of its parameter, so that the shell can't say something else than the UI."""
    return typer.Option(help=pipelines.explain(name), show_default=False)


AsJson = Annotated[bool, typer.Option("--json", help="Print the whole report as JSON, for scripts.")]
DeploymentName = Annotated[
    str | None,
    typer.Option(
        "--deployment",
        "-d",
        envvar="MLOPS_DEPLOYMENT",
        help="A name below deployments/, or the path of a YAML file.",
        show_default="local",
    ),
]


@app.command()
def build_model(
    symbol: Annotated[
        list[str], typer.Option("--symbol", "-s", help="Which symbol. Repeat it for several.", show_default=False)
    ],
    max_depth: Annotated[int | None, _option("max_depth")] = None,
    n_estimators: Annotated[int | None, _option("n_estimators")] = None,
    min_samples_leaf: Annotated[int | None, _option("min_samples_leaf")] = None,
    min_samples_split: Annotated[int | None, _option("min_samples_split")] = None,
    max_features: Annotated[float | None, _option("max_features")] = None,
    bootstrap: Annotated[bool | None, _option("bootstrap")] = None,
    random_state: Annotated[int | None, _option("random_state")] = None,
    recipe: Annotated[str, _option("recipe")] = "honest",
    horizon: Annotated[int | None, _option("horizon")] = None,
    test_size: Annotated[float | None, _option("test_size")] = None,
    source: Annotated[str | None, _option("source")] = None,
    path: Annotated[str | None, _option("path")] = None,
    start: Annotated[str | None, _option("start")] = None,
    end: Annotated[str | None, _option("end")] = None,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Build a model: prices, training set, trained model (build_model_pipeline).

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
    split = {"recipe": recipe, "horizon": horizon, "test_size": test_size}
    with _errors_said_well(as_json):
        for one in symbol:
            pipelines.check_symbol(one)
        pipelines.check_parameters(pipelines.TRAINING_SET.parameters, split)
        pipelines.resolve_forest(recipe, forest)

        from mlops_dagster import steps
        from mlops_dagster.stack.deployment import load_deployment
        from mlops_dagster.stack.store import Store
        from mlops_dagster.stack.tracking import Origin

        settings = load_deployment(deployment)
        if settings.tracking.client != "mlops":
            cure = "dagster-mlflow works inside Dagster only; set MLOPS_TRACKING__CLIENT=mlops for the shell."
            raise pipelines.refuse("tracking.client", settings.tracking.client, cure)
        where = settings.price_parameters({"source": source, "path": path, "start": start, "end": end})
        pipelines.check_parameters(pipelines.PRICES.parameters, where)
        if len(symbol) > 1 and "path" in where and "{symbol}" not in where["path"]:
            cure = "every symbol would get the same rows; write {symbol} where the symbol stands in the path."
            raise pipelines.refuse("path", where["path"], cure)
        store = Store(settings.store.root, settings.store.storage_options)
        tracker = _open_tracker(settings)
        origin = Origin("shell", str(uuid.uuid4()), None)
        tracked: Any = {"store": store, "tracker": tracker, "origin": origin}
        reports: dict[str, dict[str, Any]] = {}
        for one in symbol:
            reports[one] = {
                "prices": _run(one, "prices", partial(steps.prices, one, where, store=store)),
                "training_set": _run(one, "training_set", partial(steps.training_set, one, split, store=store)),
                "trained_model": _run(one, "trained_model", partial(steps.trained_model, one, forest, **tracked)),
            }
        if as_json:
            _print_json({"pipeline": pipelines.BUILD_MODEL.name, "run_id": origin.run_id, "symbols": reports})
        else:
            for one in symbol:
                _print_model(reports[one]["trained_model"])


@app.command()
def report(deployment: DeploymentName = None, as_json: AsJson = False) -> None:
    """Show the latest model of each symbol: parameters, metrics, and where it is."""
    with _errors_said_well(as_json):
        from mlops_dagster.stack.deployment import load_deployment
        from mlops_dagster.stack.store import Store

        settings = load_deployment(deployment)
        store = Store(settings.store.root, settings.store.storage_options)
        models = []
        for symbol in store.symbols("trained_model"):
            table = store.current("trained_model", symbol)
            if table is not None:
                models.append(
                    {
                        "symbol": symbol,
                        "recipe": table.metadata["recipe"],
                        "trained_at": table.written_at.isoformat(timespec="seconds"),
                        "parameters": json.loads(table.metadata["parameters"]),
                        "metrics": json.loads(table.metadata["metrics"]),
                        "model_uri": table.metadata["model_uri"],
                        "model_digest": table.metadata["model_digest"],
                        "mlflow_run_id": table.metadata["mlflow_run_id"],
                    }
                )
        if as_json:
            _print_json({"models": models})
        elif not models:
            out.print("No model yet. Build one: mlops build-model --symbol GSPC")
        else:
            _print_models(models)


@app.command()
def init(deployment: DeploymentName = None, as_json: AsJson = False) -> None:
    """Make the state folder ready: MLflow's database, Dagster's home, the symbols as partitions."""
    with _errors_said_well(as_json):
        from mlops_dagster.stack.deployment import load_deployment

        settings = load_deployment(deployment)
        with progress.status("MLflow's database"):
            _open_tracker(settings).connect()
        with progress.status("Dagster's home"):
            dagster_home = _prepare_dagster(settings)
        if as_json:
            _print_json({"home": str(settings.home), "dagster_home": str(dagster_home), "symbols": settings.symbols})
        else:
            out.print(
                f"Ready: {settings.home}\nFor Dagster's own commands: export DAGSTER_HOME={dagster_home}",
                soft_wrap=True,
            )


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Dagster's port.", min=1, max=65535)] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's port.", min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    deployment: DeploymentName = None,
) -> None:
    """Open Dagster and MLflow together. Stop both with Ctrl-C."""
    with _errors_said_well(as_json=False):
        from mlops_dagster.stack.deployment import load_deployment

        settings = load_deployment(deployment)
        # A server, or Databricks, has a UI of its own; a database needs ours.
        own_mlflow = not str(settings.tracking.mlflow_tracking_uri).startswith(("http", "databricks"))
        _refuse_taken_port("port", host, port)
        if own_mlflow:
            _refuse_taken_port("mlflow_port", host, mlflow_port)
        with progress.status("Making the state folder ready"):
            _open_tracker(settings).connect()
            dagster_home = _prepare_dagster(settings)
        if deployment:
            os.environ["MLOPS_DEPLOYMENT"] = deployment  # for the processes that load it again
        _serve_uis(settings, dagster_home, host=host, port=port, mlflow_port=mlflow_port if own_mlflow else None)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


def _open_tracker(settings: Any) -> Any:
    from mlops_dagster.stack.tracking import MlflowTracker

    return MlflowTracker(**settings.tracker_settings())


def _prepare_dagster(settings: Any) -> Path:
    try:
        from mlops_dagster.instance import prepare_instance
    except ModuleNotFoundError as error:
        raise pipelines.MlopsError(
            f'Dagster is not installed ({error}): pip install "mlops_dagster[dagster]".'
        ) from None
    return prepare_instance(settings)


def _refuse_taken_port(name: str, host: str, number: int) -> None:
    # Dagster would silently take another port, and every link from MLflow would lead nowhere.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            raise pipelines.refuse(name, number, f"can't be listened on at {host} ({error}); give another.") from None


def _serve_uis(settings: Any, dagster_home: Path, *, host: str, port: int, mlflow_port: int | None) -> None:
    dagster_url = f"http://{host}:{port}"
    mlflow_url = settings.tracking.mlflow_tracking_uri if mlflow_port is None else f"http://{host}:{mlflow_port}"
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(dagster_home),
        "MLOPS_HOME": str(settings.home),
        "MLOPS_DAGSTER_URL": dagster_url,
        # The server's job runners are for GenAI; without them it starts in half the time, with fewer processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    python = [sys.executable, "-m"]
    workspace = str(dagster_home / "workspace.yaml")
    commands = [[*python, "dagster", "dev", "-w", workspace, "-h", host, "-p", str(port)]]
    if mlflow_port is not None:
        environment["MLOPS_TRACKING__UI_URL"] = mlflow_url
        server = [*python, "mlflow", "server", "--host", host, "--port", str(mlflow_port), "--workers", "1"]
        server += ["--backend-store-uri", settings.tracking.mlflow_tracking_uri]
        if settings.tracking.artifact_location:
            server += ["--default-artifact-root", settings.tracking.artifact_location]
        commands.append(server)
    out.print(f"Dagster  {dagster_url}\nMLflow   {mlflow_url}\nStop both with Ctrl-C.")
    # Each gets a session of its own, so that whatever it has started can be stopped with it.
    processes = [
        subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603 - our own commands
        for command in commands
    ]
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        raise pipelines.MlopsError("Dagster or MLflow stopped; the lines above say why. Is the port taken?")
    except KeyboardInterrupt:
        progress.print("Stopping ...")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _run(symbol: str, step: str, call: Callable[[], Any]) -> dict[str, Any]:
    """Run one step with a spinner, and say when it is done."""
    began = time.monotonic()
    with progress.status(f"{symbol}  {step}"):
        made = call()
    progress.print(f"{symbol}  {step}  [dim]{made.table.rows} rows, {time.monotonic() - began:.1f} s[/dim]")
    result: dict[str, Any] = made.as_dict()
    return result


@contextmanager
def _errors_said_well(as_json: bool) -> Iterator[None]:
    """Turn an expected error into its message and an exit status; an unexpected one keeps its traceback."""
    try:
        yield
    except pipelines.MlopsError as error:
        if as_json:
            _print_json({"error": type(error).__name__, "message": str(error)})
        else:
            progress.print(f"[bold red]{type(error).__name__}[/bold red]", escape(str(error)), soft_wrap=True)
        raise typer.Exit(error.exit_status) from None


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def _print_model(model: dict[str, Any]) -> None:
    table = Table(title=f"{model['symbol']}: {model['recipe']} recipe", title_justify="left", show_header=False)
    for name, value in model["metrics"].items():
        table.add_row(name, f"{value:,.6g}")
    table.add_row("model", model["model_uri"])
    table.add_row("MLflow run", model["mlflow_run_id"])
    out.print(table)


def _print_models(models: list[dict[str, Any]]) -> None:
    table = Table(title="The latest model of each symbol", title_justify="left")
    for column in ("symbol", "recipe", "depth", "trees"):
        table.add_column(column)
    for column in ("rmse", "r2", "vs persistence", "vs mean"):
        table.add_column(column, justify="right")
    for model in models:
        metrics, parameters = model["metrics"], model["parameters"]
        table.add_row(
            model["symbol"],
            model["recipe"],
            str(parameters["max_depth"]),
            str(parameters["n_estimators"]),
            f"{metrics['rmse']:.3f}",
            f"{metrics['r2']:.4f}",
            f"{metrics['skill_vs_persistence']:+.2%}",
            f"{metrics['skill_vs_training_mean']:+.2%}",
        )
    out.print(table)
    out.print(
        "Measured on test rows that the model has never seen. The last two columns say by how much its squared error\n"
        "is smaller than that of 'the price stays as it is', and of the training rows' mean.",
        soft_wrap=True,
    )


def main() -> None:
    """Run the command line; a polite kill ends the MLflow run as KILLED instead of leaving it open."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    app()


if __name__ == "__main__":
    main()
