"""`mlops report`: what there is of each model, on the terminal, as JSON or as a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mlops_dagster.errors import refuse
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
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.spec.steps import ALL
from mlops_dagster.stack.secrets import redacted

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.steps.kept import Kept
    from mlops_dagster.steps.state import Section

Page = Annotated[
    Path | None,
    typer.Option(
        "--html",
        help="Write the state as one page to this file, which opens in a browser without a server.",
        dir_okay=False,
        show_default=False,
    ),
]
Which = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Models, or partitions of them. Default: all, on the terminal in brief.",
        show_default=False,
    ),
]


def report(model: Which = None, html: Page = None, deployment: DeploymentName = None, as_json: AsJson = False) -> None:
    """Show each model's champion, newest predictions, how good they were, and the latest search; of named ones, more.

    Example: mlops report churn --html state.html
    """
    with handle_errors(as_json):
        if html is not None and not html.absolute().parent.is_dir():
            raise refuse("html", str(html), "give a file in a folder that exists.")

        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.steps import kept, state

        settings = load_deployment(deployment)
        root = redacted(settings.store.root)
        with progress.status("Reading the tables"):
            models = _kept(settings, model or [])
            of_many, few = _of_many(settings, models, model or [], brief=html is None and not model)
            if html is not None:
                from mlops_dagster.shell.report_page import report_page

                _write(html, report_page([*of_many, *state.state_of(few)], root))
        if html is not None:
            if as_json:
                print_json({"html": str(html.absolute())})
            else:
                out.print(f"Written: {html.absolute().as_uri()}", markup=False)
        elif as_json:
            searches = [one for each in models for one in kept.latest_searches(each)]
            trained = [one for each in models for one in kept.latest_models(each)]
            made = [one for each in models for one in kept.latest_predictions(each)]
            print_json({"models": trained, "predictions": made, "searches": searches})
        elif models:
            with progress.status("Reading the tables"):
                sections = [*of_many, *state.state_of(few, brief=not model, pictures=False)]
            for section in sections:
                if section.rows:
                    _print(section)
            about = (
                "mlops report PARTITION says all of one, "
                if of_many
                else ""
                if model
                else "mlops report MODEL says more, "
            )
            say_next(f"{about}mlops report --html state.html makes a page of it, with all decisions and drift")
        else:
            out.print(
                f"No model yet in {root}. Build one: {how_to_begin(*(model or ())[:1])}\n"
                "Are they elsewhere? Set MLOPS_HOME, or choose a deployment with --deployment.",
                markup=False,
            )


def _kept(settings: Any, wanted: Sequence[str]) -> list[Kept]:
    """Return where the state of the models is kept: of all, or of those named, by their name or a partition's."""
    from mlops_dagster.stack.store import store_of
    from mlops_dagster.steps.kept import kept_in

    there = {name: find_model(name) for name in model_names() if not wanted or name in wanted}
    if set(wanted) - set(there):  # a partition's name says nothing of its model
        there = {name: find_model(name) for name in model_names()}
    found = [
        one
        for model in there.values()
        for one in kept_in(store_of(settings, model), open_tracker(settings, model).registry, model)
    ]
    names = [{one.tables.symbol, one.model.name} for one in found]
    known = set().union(*names, there)
    if unknown := [one for one in wanted if one not in known]:
        raise refuse(
            "model", unknown[0], f"nothing is kept of it; there are {', '.join(sorted(known - {ALL})) or 'none yet'}."
        )
    return [one for one, called in zip(found, names, strict=True) if not wanted or called & set(wanted)]


def _of_many(
    settings: Any, models: Sequence[Kept], wanted: Sequence[str], *, brief: bool
) -> tuple[list[Section], list[Kept]]:
    """Return what is shown of models with many partitions at once, and the state of which is shown one by one.

    Of such models the worst partitions; on the terminal in brief none.
    """
    from mlops_dagster.stack.store import store_of
    from mlops_dagster.steps.fleet import MANY, fleet_of, sections_of

    sections, left = [], []
    for _, group in groupby(models, lambda one: one.model.name):
        some = list(group)
        if len(some) <= MANY:
            left += some
            continue
        declared, keys = some[0].model, [one.tables.symbol for one in some]
        if not wanted or declared.name in wanted:
            keys = sorted({*keys, *_found(declared, settings)})
        fleet = fleet_of(declared, store_of(settings, declared), keys)
        sections += sections_of(fleet, pictures=not brief)
        worst = {one.key for one in fleet.worst}
        left += [one for one in some if one.tables.symbol in worst and not brief]
    return sections, left


def _found(declared: Declaration, settings: Any) -> list[str]:
    """Return the partitions that files or the declaration name, whether or not anything was made of them."""
    from mlops_dagster.spec.contradictions import by_path
    from mlops_dagster.stack.file_finding import SourceError
    from mlops_dagster.stack.table_sources import partitions_of

    if declared.partitions is None or not (declared.partitions.keys or by_path(declared)):
        return []  # to find them would be to read all rows
    try:
        return partitions_of(declared, given=settings.data_parameters(declared)) or []
    except SourceError:  # what was made can be shown all the same
        return []


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        cure = f"it can't be written ({error.strerror}); give another file."
        raise refuse("html", str(file), cure) from None


def _print(section: Section) -> None:
    table = Table(title=section.title, title_justify="left", show_header=False)
    table.add_column(overflow="fold")
    last = None
    for name, *row in section.rows:
        table.add_row("" if name == last else name, escape(section.in_short(*row)))
        last = name
    out.print(table)
