"""`mlops new`: a declaration proposed from a table."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from mlops_dagster.errors import MlopsError, ParameterError, refuse
from mlops_dagster.shell.output import AsJson, handle_errors, out, print_json, progress
from mlops_dagster.stack.files import said_by_the_disk
from mlops_dagster.stack.secrets import looks_secret, redacted

if TYPE_CHECKING:
    from mlops_dagster.modeling.proposal import Proposal
    from mlops_dagster.stack.limits import LimitSettings


def new(
    name: Annotated[str, typer.Argument(help="What the model is called: small letters, digits and _.")],
    data: Annotated[str, typer.Option(help="A file, a glob of several, or a URL.", show_default=False)],
    target: Annotated[str, typer.Option(help="The column to predict.", show_default=False)],
    task: Annotated[
        Literal["regression", "classification"] | None,
        typer.Option(help="What is predicted: a number or a class.", show_default="by the target"),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="The column that orders rows.", show_default="the only column of dates, if rows are in its order"
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="The column whose equal values belong together.", show_default=False)
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            help="A model for each value of this column, or for each file: {name} in --data.", show_default=False
        ),
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="For forecasts: how many rows ahead.", min=1, show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Propose a model for a table: writes defs/NAME/defs.yaml, and Python beside it where that is needed.

    Nothing is ever overwritten.

    Example: mlops new churn --data customers.csv --target churned
    """
    with handle_errors(as_json):
        from mlops_dagster.modeling.proposal import propose
        from mlops_dagster.modeling.recognition import recognise
        from mlops_dagster.modeling.table_roles import Wishes
        from mlops_dagster.spec.project import defs_folder
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.table_sources import look_at

        folder = defs_folder() / name
        _refuse_name(name, folder)
        if kind := looks_secret(data):
            raise ParameterError(f"--data holds {kind}, which would be written down; give it in the environment.")
        by_file = partition is not None and "{" + partition + "}" in data
        pattern = re.sub(r"\{\w+\}", "*", data) if by_file else data
        limits = load_deployment(None).limits
        with progress.status("The table"):
            cells, form, text = look_at(pattern, limits)
            found = recognise(cells, text=text)
            wishes = Wishes(target, task, time, group, partition, horizon, by_file)
            proposal = propose(found.frame, found.types, wishes)
            files = {"path": _path_from(folder, data), **form, **found.form}
            written = _text_of(name, files, proposal)
            notes = [*found.notes, *proposal.notes]
            notes += _tried(folder, written, proposal, limits)
        paths = _write(folder, {"defs.yaml": written, **proposal.python})
        if as_json:
            print_json({"name": name, "files": [str(one) for one in paths], "proposal": proposal.facts, "notes": notes})
            return
        _show(name, target, files, proposal, notes, paths)


def _refuse_name(name: str, folder: Path) -> None:
    from mlops_dagster.spec.model import NAME

    if not NAME.fullmatch(name):
        meant = re.sub(r"\W+", "_", name.strip().lower()).strip("_")[:40]
        such = f", as {meant}" if NAME.fullmatch(meant) else ""
        raise refuse("NAME", name, f"give 1 to 40 small letters, digits and _, beginning with a letter{such}.")
    if folder.exists():
        raise refuse("NAME", name, f"{folder} is there already, and nothing is overwritten. Give another name.")


def _path_from(folder: Path, data: str) -> str:
    """Return the path as the declaration says it: within the project from where it stands, else from the root."""
    from mlops_dagster.spec.project import project_of

    if "://" in data:
        return data
    path = Path(os.path.normpath(Path(data).expanduser().absolute()))
    project = project_of(folder)
    inside = path.is_relative_to(project) and Path(glob.escape(str(path))).parent.resolve().is_relative_to(
        project.resolve()
    )
    return os.path.relpath(path, folder) if inside else str(path)


def _text_of(name: str, files: dict[str, Any], proposal: Proposal) -> str:
    from mlops_dagster.spec.writing import yaml_of

    attributes = {"task": proposal.attributes["task"], "data": {"files": files}, **proposal.attributes}
    head = (
        f"Proposed by `mlops new` from {Path(files['path']).name}. It is yours: correct what you know better.\n"
        f"`mlops check {name}` says whether it holds, `mlops build-model {name}` trains."
    )
    return yaml_of(attributes, proposal.comments, head)


def _tried(folder: Path, text: str, proposal: Proposal, limits: LimitSettings) -> list[str]:
    """Read what would be written, and the table by it; say what still keeps a model from being trained."""
    from mlops_dagster.modeling.contract import check_contract
    from mlops_dagster.modeling.training_set import make_training_set
    from mlops_dagster.spec import limited_yaml
    from mlops_dagster.spec.functions import function_of
    from mlops_dagster.spec.reading import declared
    from mlops_dagster.stack.table_sources import partitions_of, read_table

    said = limited_yaml.load(text)["attributes"]
    with tempfile.TemporaryDirectory() as other:
        # The functions are looked for where they stand until they are where they will be.
        for file, content in proposal.python.items():
            (Path(other) / file).write_text(content, encoding="utf-8")
        declaration = declared(said, folder / "defs.yaml", limited_yaml.compose(text))
        keys = partitions_of(declaration, limits)
        rows, source = read_table(declaration, keys[0] if keys else None, limits=limits)
        table = check_contract(declaration, rows, source=source)
        features = function_of(declaration.at(Path(other), declaration.name), declaration.features)
        try:
            make_training_set(declaration, table, features=features)
        except ParameterError as error:
            return [f"As it is, nothing can be trained: {error}"]
    return []


def _write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write a folder whole or not at all."""
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        try:
            beside.mkdir(parents=True)
            for name, text in files.items():
                (beside / name).write_text(text, encoding="utf-8")
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise MlopsError(said_by_the_disk(error) or f"{folder} can't be written: {error.strerror or error}.") from None
    return [folder / name for name in files]


def _show(
    name: str, target: str, files: dict[str, Any], proposal: Proposal, notes: list[str], paths: list[Path]
) -> None:
    out.print(f"[bold]{escape(name)}[/bold]: {proposal.attributes['task']} of {escape(target)}")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    form = ", ".join(f"{one} {_said(value)}" for one, value in files.items() if one != "path")
    table.add_row("data", escape(redacted(files["path"]) + (f" ({form})" if form else "")))
    for what, said in proposal.facts.items():
        table.add_row(what, escape(said))
    out.print(table)
    for note in notes:
        out.print(f"[yellow]note[/yellow] {escape(note)}")
    beside = [one.name for one in paths[1:]]
    out.print(f"Wrote {paths[0]}" + (f", and {' and '.join(beside)} beside it." if beside else "."), markup=False)
    out.print(f"Look it through, then: mlops check {name}", markup=False)


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{one} as {form}" for one, form in value.items())
    if isinstance(value, list):
        return " ".join(repr(one) for one in value)
    return {True: "column left out"}.get(value, repr(value)) if not isinstance(value, str) else repr(value)
