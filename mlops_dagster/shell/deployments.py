"""`mlops deployments`: which stacks there are, what each one says, and whether it can work."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mlops_dagster.errors import install, refuse
from mlops_dagster.shell.output import AsJson, handle_errors, out, print_json, progress

if TYPE_CHECKING:
    from mlops_dagster.stack.deployment import Deployment

app = typer.Typer(
    help="Which stacks there are, what each one says, and whether it can work. See docs/deployments.md.",
    no_args_is_help=True,
)

Name = Annotated[
    str | None,
    typer.Argument(
        envvar="MLOPS_DEPLOYMENT", help="A name below deployments/, or the path of a YAML file.", show_default="local"
    ),
]
Names = Annotated[
    list[str] | None, typer.Argument(help="Names below deployments/, or paths of YAML files.", show_default="local")
]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the deployments: where steps run, where tables live, where runs are tracked."""
    with handle_errors(as_json):
        from mlops_dagster.stack.deployment_files import DeploymentError, deployment_names, find_deployment_file

        rows = []
        for name in deployment_names():
            file = str(find_deployment_file(name) or "")
            try:
                rows.append({"name": name, **_summary(name), "file": file, "problems": []})
            except DeploymentError as error:
                rows.append({"name": name, "file": file, "problems": list(error.problems)})
        if as_json:
            print_json(rows)
            return
        for row in rows:
            _print_listed(row)


def _print_listed(row: dict[str, Any]) -> None:
    out.print(f"[bold]{escape(row['name'])}[/bold]")
    if row["problems"]:
        out.print(f"  [red]wrong[/red]     mlops deployments check {escape(row['name'])}")
    for key in ("compute", "store", "tracking", "spark", "file"):
        if row.get(key):
            out.print(f"  {key:9} {row[key]}", markup=False)


def _summary(name: str) -> dict[str, Any]:
    from mlops_dagster.stack.deployment_files import load_deployment

    settings = load_deployment(name)
    kinds = {"new": "a new cluster per run", "existing": "an existing cluster", "serverless": "serverless"}
    cluster = f", {kinds[settings.databricks.cluster.kind]}" if settings.databricks else ""
    return {
        "compute": settings.compute + cluster,
        "store": _without_secret("root", settings.store.root),
        "tracking": _without_secret("uri", settings.tracking.mlflow_tracking_uri),
        "spark": _spark(settings),
    }


def _spark(settings: "Deployment") -> str:
    return "the cluster's own" if settings.compute != "here" else settings.spark.shown_master


# ------------------------------------------------------------------------------------------------------------ show


@app.command()
def show(deployment: Name = None, as_json: AsJson = False) -> None:
    """Show every setting of a deployment, and where it comes from. Secrets are not shown."""
    with handle_errors(as_json):
        from mlops_dagster.stack.databricks.workspace import credential_state
        from mlops_dagster.stack.deployment_files import find_deployment_file, load_deployment

        name = deployment or "local"
        settings = load_deployment(name)
        rows = _settings(settings)
        credentials = credential_state(settings.databricks) if settings.databricks else {}
        file = find_deployment_file(name)
        if as_json:
            print_json(
                {
                    "name": name,
                    "file": str(file) if file else None,
                    "settings": rows,
                    "credentials": credentials,
                    "warnings": _warnings(settings),
                }
            )
            return
        out.print(f"{name}: {file or 'no file, only defaults and environment'}", markup=False)
        table = Table(box=None, pad_edge=False)
        table.add_column("setting", no_wrap=True)
        table.add_column("value", overflow="fold")
        table.add_column("from", overflow="fold")
        for row in rows:
            table.add_row(*(escape(str(row[key])) for key in ("setting", "value", "from")))
        out.print(table)
        for variable, state in credentials.items():
            out.print(f"{variable}: {state}", markup=False)
        _print_warnings(_warnings(settings))


def _settings(settings: "Deployment") -> list[dict[str, Any]]:
    """Return the settings one by one: name, value, and who says so."""
    from pydantic_settings import EnvSettingsSource

    from mlops_dagster.stack.deployment_reading import variable_of

    environment = EnvSettingsSource(type(settings))()
    rows = []
    for place, value in _leaves(settings.model_dump(mode="json"), ()):
        origin = "default"
        if _said(place, settings.file_says):
            origin = "file"
        if _said(place, environment):
            origin = variable_of(place, "MLOPS_", os.environ) or "environment"
        shown = (
            settings.spark.shown_master if place == ("spark", "master") else _without_secret(place[-1], value, place)
        )
        rows.append({"setting": ".".join(place), "value": shown, "from": origin})
    return rows


def _leaves(value: Any, place: tuple[str, ...]) -> Any:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*place, str(name)))
    else:
        yield place, value


def _said(place: tuple[str, ...], said: Any) -> bool:
    """Return whether a source says something at this place: `null` is said, too."""
    for part in place:
        if not isinstance(said, dict):
            return True  # a list, or one value for a whole section
        if part not in said:
            return False
        said = said[part]
    return True


def _without_secret(name: str, value: Any, place: tuple[str, ...] = ()) -> Any:
    from mlops_dagster.stack.secrets import is_secret_name, redacted

    own_name = bool({"extra_tags", "custom_tags"} & set(place))
    if value in (None, "", [], {}) or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "***" if is_secret_name(name) and not own_name else redacted(value)
    return value


# ----------------------------------------------------------------------------------------------------------- check


@app.command()
def check(
    deployments: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Check every file in deployments/.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check deployments up to the execution plan of every job: offline, without credentials, without Java.

    Example: mlops deployments check databricks_pipes mine.yaml
    """
    with handle_errors(as_json):
        checked = [_check(name) for name in _which(deployments or [], every)]
        wrong = any(one["problems"] for one in checked)
        if as_json:
            print_json(checked)
        else:
            for one in checked:
                _print_checked(one)
            if not all(one["plans"] for one in checked if not one["problems"]):
                said = f"Dagster is not installed: no plans were built ({install('dagster')})."
                progress.print(said, markup=False)
        raise typer.Exit(2 if wrong else 0)


def _which(given: list[str], every: bool) -> list[str]:
    from mlops_dagster.stack.deployment_files import deployment_folders

    if not every:
        return given or [os.environ.get("MLOPS_DEPLOYMENT") or "local"]
    if given:
        raise refuse("--all", " ".join(given), "give names, or --all, not both.")
    files = {file.stem: str(file) for folder in reversed(deployment_folders()) for file in folder.glob("*.yaml")}
    return [files[name] for name in sorted(files)]


def _check(name: str) -> dict[str, Any]:
    from mlops_dagster.stack.deployment_files import DeploymentError, load_deployment

    try:
        settings = load_deployment(name)
    except DeploymentError as error:
        return {"deployment": name, "problems": list(error.problems), "warnings": [], "plans": False}
    problems, plans = _credential_problems(settings), True
    if not problems:
        try:
            from mlops_dagster.plans import plan_problems
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != "dagster":
                raise
            plans = False
        else:
            problems += plan_problems(settings, name)
    return {"deployment": name, "problems": problems, "warnings": _warnings(settings), "plans": plans and not problems}


def _warnings(settings: "Deployment") -> list[str]:
    from mlops_dagster.stack.deployment_reading import unknown_variables
    from mlops_dagster.stack.deployment_rules import warnings

    return warnings(settings) + unknown_variables(os.environ, type(settings), "MLOPS_")


def _credential_problems(settings: "Deployment") -> list[str]:
    """Return what is wrong with the credentials that are there; there need not be any."""
    from mlops_dagster.stack.databricks.workspace import KINDS

    if settings.databricks is None or settings.databricks.auth is not None:
        return []
    there = [kind for kind, names in KINDS.items() if all(os.environ.get(name) for name in names)]
    if len(there) < 2:
        return []
    variables = " and ".join(", ".join(KINDS[kind]) for kind in there)
    return [
        f"databricks.auth: the environment has two kinds of credentials ({variables}); unset one, or say which one "
        f"counts: {' or '.join(there)}."
    ]


def _print_checked(one: dict[str, Any]) -> None:
    name = Path(one["deployment"]).name if one["deployment"].endswith((".yaml", ".yml")) else one["deployment"]
    if not one["problems"]:
        out.print(f"[green]ok[/green]     {escape(name)}")
    elif len(one["problems"]) == 1:
        out.print(f"[bold red]wrong[/bold red]  {escape(name)}: {escape(one['problems'][0])}")
    else:
        out.print(f"[bold red]wrong[/bold red]  {escape(name)}:")
        for problem in one["problems"]:
            out.print(f"  - {problem}", markup=False)
    _print_warnings(one["warnings"])


def _print_warnings(warnings: list[str]) -> None:
    for warning in warnings:
        out.print(f"  [yellow]warning[/yellow] {escape(warning)}")
