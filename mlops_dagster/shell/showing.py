"""What commands print of models: what was trained, decided, found and predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mlops_dagster.errors import ParameterError
from mlops_dagster.shell.options import as_options
from mlops_dagster.shell.output import out, say_next
from mlops_dagster.shell.running import Reports, called
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.project import find_model, model_meant, needs_no_name


def options_of(declaration: Declaration, partition: str) -> str:
    """Return what stands behind a command for a model and a partition: nothing more than is needed."""
    model = "" if needs_no_name(declaration) else f" {declaration.name}"
    return model + ("" if partition == names.ALL else f" --{names.partition_option(declaration)} {partition}")


def how_to_begin(name: str | None = None) -> str:
    """Return the command that builds a first model: of this name, or the one that is meant where none is named."""
    try:
        model = find_model(name) if name else model_meant()
    except ParameterError:
        return "mlops build-model NAME"
    partition = names.ALL if model.partitions is None else (model.partitions.keys or ["KEY"])[0]
    return f"mlops build-model{options_of(model, partition)}"


def show_model(declaration: Declaration, reports: dict[str, Reports]) -> None:
    """Print what was trained of each partition, and who is champion."""
    if len(reports) > 1:
        _show_models(declaration, reports)
        return
    for partition, made in reports.items():
        model = made[names.TRAINED_MODEL]
        table = Table(title=called(declaration, partition), title_justify="left", show_header=False)
        for name, value in model["metrics"].items():
            table.add_row(name, f"{value:,.6g}")
        table.add_row("model", model["model_uri"])
        table.add_row("MLflow run", model["mlflow_run_id"])
        out.print(table)
    show_decisions(declaration, {one: made[names.CHAMPION_MODEL] for one, made in reports.items()})


def _show_models(declaration: Declaration, reports: dict[str, Reports]) -> None:
    """Print a table of many models, one row each."""
    table = Table(title=declaration.name, title_justify="left")
    metric = next(iter(next(iter(reports.values()))[names.TRAINED_MODEL]["metrics"]))
    for column in (str(names.partition_option(declaration)), metric, "baseline", "champion", "why"):
        table.add_column(column, overflow="fold")
    for partition, made in reports.items():
        metrics, decision = made[names.TRAINED_MODEL]["metrics"], made[names.CHAMPION_MODEL]
        numbers = [f"{metrics[one]:,.5g}" if one in metrics else "" for one in (metric, metric + names.OF_BASELINE)]
        champion = decision["champion"]
        table.add_row(partition, *numbers, f"version {champion}" if champion else "none", decision["outcome"])
    out.print(table)
    say_next("mlops report shows all models, mlops report --html state.html a page of them")


def show_decisions(declaration: Declaration, decisions: Mapping[str, Mapping[str, Any]]) -> None:
    """Print who is champion, and why, and what can be done next."""
    for partition, report in decisions.items():
        champion = report["champion"]
        who = f"version {champion} is champion" if champion else "there is no champion"
        if not report["promoted"] and report["challenger"] != champion:
            who += f", version {report['challenger']} is kept out"
        out.print(f"{called(declaration, partition)}: {who}. {report['reason']}", markup=False)
    for partition, report in [*decisions.items()][:1]:
        if report["champion"] and declaration.predictions:
            say_next(f"mlops predict{options_of(declaration, partition)}. All models: mlops report")
        elif not report["champion"] and declaration.search:
            say_next(f"mlops search-model{options_of(declaration, partition)} looks for better parameters")


def show_search(declaration: Declaration, reports: dict[str, Reports]) -> None:
    """Print the best parameters that were found for each partition."""
    for partition, made in reports.items():
        report = made[names.GRID_SEARCH_RESULTS]
        table = Table(title=called(declaration, partition), title_justify="left", show_header=False)
        for name, value in report["best_parameters"].items():
            table.add_row(name, str(value))
        table.add_row("score", f"{report['metrics']['best_score']:.6g} ({report['scoring']})")
        table.add_row("scored on", report["cv"])
        failed = f", {report['failed_candidates']:,} failed" if report["failed_candidates"] else ""
        table.add_row("candidates", f"{report['candidates']:,}{failed}")
        table.add_row("fitted", "on Spark" if report["engine"] == names.SPARK else "on this machine")
        table.add_row("shared", report["shared"])
        if (work := report["work"])["trees_asked"]:
            cached = f"{work['trees_reused']:,} from the cache"
            table.add_row("trees", f"{work['trees_grown']:,} grown, {cached}, {work['trees_asked']:,} asked for")
        table.add_row("MLflow run", report["mlflow_run_id"])
        out.print(table)
    for partition, made in [*reports.items()][:1]:
        best = as_options(made[names.GRID_SEARCH_RESULTS]["best_parameters"])
        say_next(f"mlops build-model{options_of(declaration, partition)} {best}")


def show_plans(declaration: Declaration, plans: Mapping[str, Any]) -> None:
    """Print what searches would do."""
    for partition, plan in plans.items():
        out.print(f"{called(declaration, partition)}: {plan}", markup=False)
    say_next("the same command without --plan")


def show_predictions(declaration: Declaration, reports: dict[str, Reports]) -> None:
    """Print what was predicted of each partition, and how good earlier predictions were."""
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
    say_next("mlops report --html state.html (a page of all), or mlops serve (for other programs)")
