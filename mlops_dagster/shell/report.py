"""`mlops report`: what there is of each symbol, on the terminal, as JSON or as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mlops_dagster import pipelines
from mlops_dagster.errors import refuse
from mlops_dagster.shell.forecast import latest_forecasts, print_forecasts
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
from mlops_dagster.stack.secrets import redacted

Page = Annotated[
    Path | None,
    typer.Option(
        "--html",
        help="Write the state of all symbols as one page to this file, which opens in a browser without a server.",
        dir_okay=False,
        show_default=False,
    ),
]


def report(html: Page = None, deployment: DeploymentName = None, as_json: AsJson = False) -> None:
    """Show the latest model, the newest forecast and the latest search of each symbol.

    Example: mlops report --html state.html
    """
    with handle_errors(as_json):
        if html is not None and not html.absolute().parent.is_dir():
            raise refuse("html", str(html), "give a file in a folder that exists.")

        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.store import store_of
        from mlops_dagster.steps import state

        settings = load_deployment(deployment)
        store = store_of(settings)
        if html is not None:
            from mlops_dagster.shell.report_page import report_page

            with progress.status("Reading the tables"):
                sections = state.state_of(store, open_tracker(settings).registry)
            _write(html, report_page(sections, redacted(str(store.root))))
            if as_json:
                print_json({"html": str(html.absolute())})
            else:
                out.print(f"Written: {html.absolute().as_uri()}", markup=False)
            return
        models, forecasts, searches = state.latest_models(store), latest_forecasts(store), state.latest_searches(store)
        if as_json:
            print_json({"models": models, "forecasts": forecasts, "searches": searches})
            return
        if models:
            _print_models(models)
        else:
            out.print(
                f"No model yet in {redacted(str(store.root))}. Build one: mlops build-model --symbol GSPC\n"
                "Are they elsewhere? Set MLOPS_HOME, or choose a deployment with --deployment.",
                markup=False,
            )
        if forecasts:
            print_forecasts(forecasts)
        if searches:
            _print_searches(searches)
        if models:
            say_next("mlops report --html state.html makes a page of it, with pictures, all decisions and drift")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        cure = f"it can't be written ({error.strerror}); give another file."
        raise refuse("html", str(file), cure) from None


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
        "Measured on test rows that the model has never seen. The last two columns say by how much its squared error "
        "is smaller than that of 'the price stays as it is', and of the training rows' mean.",
    )
    for model in models:
        champion_version = model["champion"]
        who = f"version {champion_version} is champion" if champion_version else "there is no champion yet"
        out.print(f"{model['symbol']}: {who}, the latest model is version {model['model_version']}.")


def _print_searches(searches: list[dict[str, Any]]) -> None:
    table = Table(title="The latest search of each symbol", title_justify="left")
    for column in ("symbol", "recipe", "candidates", "best parameters", "score", "trees grown"):
        table.add_column(column)
    for one in searches:
        table.add_row(
            one["symbol"],
            one["recipe"],
            f"{one['candidates']:,}" + (" (Spark)" if one["pipeline"] == pipelines.CLUSTER_SEARCH_MODEL.name else ""),
            "\n".join(f"{name} {value}" for name, value in one["best_parameters"].items()),
            f"{one['best_score']:.5g}",
            f"{one['work']['trees_grown']:,}\nof {one['work']['trees_asked']:,}",
        )
    out.print(table)
