"""Write docs/reference.md from the code: what there is, with the words that the code itself has for it.

    make reference                                    # write it
    .venv/bin/python docs/make_reference.py --check   # say whether it is up to date, and what differs

Of pipelines, steps and tables it shows one model, `stock_price`; each of its steps runs once, in a folder of its own.
"""

import argparse
import difflib
import json
import logging
import os
import re
import sys
import tempfile
import types
import typing
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import click
import dagster as dg
import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.cli import app
from mlops_dagster.compute.report import columns_of
from mlops_dagster.definitions import definitions_of
from mlops_dagster.jobs import jobs_of
from mlops_dagster.session import Session
from mlops_dagster.spec.model import Data, Declaration
from mlops_dagster.spec.parameters import Parameter, Step
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.steps import parameters_of, pipelines_of, steps_of
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.tracking import Origin

REFERENCE = Path(__file__).parent / "reference.md"
HEAD = """\
# Reference

<!-- Made from the code by docs/make_reference.py. Don't edit it: run `make reference`. -->

What there is, in the code's own words: [pipelines](#pipelines) and their steps, [tables](#tables), what
[Dagster](#dagster) shows and does, what a [declaration](#declaration) can say, the [settings of a
deployment](#settings), the [commands](#commands).
"""
MODEL = find_model("stock_price")
# Enough to make every table, in seconds; what is in them doesn't matter here.
SMALL: dict[str, dict[str, typing.Any]] = {
    "trained_model": {"n_estimators": 5},
    "champion_model": {"beat_baseline": False},
    "grid_search_results": {"grid": {"n_estimators": [2, 4], "max_depth": [2]}},
    "predictions": {"catch_up": 5},
}


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, with an empty line before and after it."""
    head = list(head)
    yield ""
    yield from (_row(cells) for cells in (head, ["---"] * len(head), *rows))
    yield ""


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"


def sentence(text: str | None) -> str:
    """Return the first paragraph of a docstring or help text, in one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def code(text: object) -> str:
    return f"`{text}`"


# ---------------------------------------------------------------------------------------------------------- pipelines


def pipelines_part() -> Iterator[str]:
    yield "## Pipelines"
    yield ""
    yield "Those of the model `stock_price`. Every model has them, as far as its [declaration](#declaration) says; its"
    yield "name stands before theirs (`churn_build_model_pipeline`)."
    yield from table(
        ("pipeline", "what it does", "its steps"),
        (
            (code(one.name), one.description, " → ".join(f"[`{step.name}`](#{step.name})" for step in one.steps))
            for one in pipelines_of(MODEL)
        ),
    )
    yield "Every tool calls the same steps with the same parameters: `ops: <model>__<step>: config:` in Dagster's"
    yield "launchpad, `--max-depth` for `max_depth` in the shell, a key of `conf` in Airflow, a job parameter on"
    yield "Databricks."
    for step in steps_of(MODEL).values():
        yield ""
        yield f"### {step.name}"
        yield ""
        yield step.description
        if step.parameters:
            yield from table(
                ("parameter", "what may be given", "not given", "what it is"),
                (
                    (code(one.name), _domain(one), _default(one, step), _DEFAULT.sub("", one.description).strip())
                    for one in step.parameters
                ),
            )
        else:
            yield ""
            yield "It takes no parameters."


_DEFAULT = re.compile(r"\s*Default: (.+?)\.(?=\s|$)")


def _domain(one: Parameter) -> str:
    return ", ".join(map(code, one.choices)) if one.choices else one.domain


def _default(one: Parameter, step: Step) -> str:
    if (value := step.defaults.get(one.name)) is not None:
        return _value(value)
    return said[1] if (said := _DEFAULT.search(one.description)) else ""


def _value(value: object) -> str:
    return code(value if isinstance(value, str) else json.dumps(value))


# ------------------------------------------------------------------------------------------------------------- tables


def tables_part() -> Iterator[str]:
    yield "## Tables"
    yield ""
    yield "Each step leaves one Delta table for each partition (`all` if there are none), at"
    yield "`<store.root>/<model>/<table>/<partition>`; data that models share are below the dataset's name. All"
    yield "versions stay readable."
    with Session(load_deployment(), MODEL, Origin("shell", "reference", None)) as session:
        for name in steps_of(MODEL):
            made = session.run(name, "GSPC", SMALL.get(name, {})).columns
            said = columns_of(MODEL, made)
            yield ""
            yield f"### Table {name}"
            yield from table(
                ("column", "type", "what it holds"),
                ((code(column), dtype, said.get(column, "")) for column, dtype in made.items()),
            )


# ------------------------------------------------------------------------------------------------------------ Dagster


def dagster_part() -> Iterator[str]:
    definitions = definitions_of(load_deployment())
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    yield "## Dagster"
    yield ""
    yield "Of the models that come with the package; default states are those of `deployments/local.yaml`."
    yield ""
    yield "### Assets"
    yield from table(
        ("asset", "group", "made from", "what it is"),
        (
            (
                code(key.to_user_string()),
                graph.get(key).group_name,
                ", ".join(code(parent.to_user_string()) for parent in sorted(graph.get(key).parent_keys)),
                sentence(graph.get(key).description),
            )
            for key in graph.toposorted_asset_keys
        ),
    )
    yield "### Checks"
    yield from table(
        ("check", "of", "if it fails", "what holds"),
        (
            (
                code(key.name),
                code(key.asset_key.to_user_string()),
                "what follows isn't made" if graph.get(key).blocking else "",
                sentence(graph.get(key).description),
            )
            for key in sorted(graph.asset_check_keys, key=lambda key: (key.asset_key, key.name))
        ),
    )
    yield "### Jobs"
    yield ""
    yield "Each is the pipeline of its name. This is what the launchpad opens with:"
    for job in jobs_of(OfModel(MODEL)):
        said = {name: {"config": _without_none(op["config"])} for name, op in _launchpad(job)["ops"].items()}
        shown = yaml.safe_dump({"ops": said}, sort_keys=False)
        yield from ("", f"`{job.name}`:", "", "```yaml", *shown.splitlines(), "```")
    yield ""
    yield "### Schedules"
    yield from table(
        ("schedule", "when", "at first", "what it does"),
        (
            (
                code(one.name),
                f"`{one.cron_schedule}`, {one.execution_timezone or 'UTC'}",
                _status(one),
                sentence(one.description),
            )
            for one in sorted(repository.schedule_defs, key=lambda one: one.name)
        ),
    )
    yield "### Sensors"
    yield from table(
        ("sensor", "looks every", "at first", "what it does"),
        (
            (code(one.name), f"{one.minimum_interval_seconds or 30} s", _status(one), sentence(one.description))
            for one in sorted(repository.sensor_defs, key=lambda one: one.name)
        ),
    )


def _status(one: dg.ScheduleDefinition | dg.SensorDefinition) -> str:
    return "on" if one.default_status.value == "RUNNING" else "off"


def _launchpad(job: typing.Any) -> typing.Any:
    return job.config.to_config_dict() if isinstance(job.config, dg.RunConfig) else job.config


def _without_none(values: typing.Any) -> typing.Any:
    return {name: value for name, value in values.items() if value is not None}


# ----------------------------------------------------------------------------------------------------------- settings


def settings_part() -> Iterator[str]:
    yield "## Settings"
    yield ""
    yield "Of a deployment, see [which tools, by config](deployments.md): in its file, or in the environment."
    yield from table(
        ("setting", "type", "default", "variable", "what it says"),
        (
            (code(path), kind, default, code("MLOPS_" + path.upper().replace(".", "__")), said)
            for path, kind, default, said in _settings(Deployment, "")
        ),
    )


def declaration_part() -> Iterator[str]:
    yield "## Declaration"
    yield ""
    yield "What a model can say of itself in its `defs.yaml`, below `attributes`, see"
    yield "[bring your model](bring_your_model.md)."
    yield from table(
        ("setting", "type", "default", "what it says"),
        ((code(path), kind, default, said) for path, kind, default, said in _settings(Declaration, "", {Data})),
    )


def _settings(
    model: type[BaseModel], above: str, once: Collection[type[BaseModel]] = ()
) -> Iterator[tuple[str, str, str, str]]:
    """Yield each setting; what stands in several places and is of a kind in `once` is written out in the first."""
    for name, field in model.model_fields.items():
        path = f"{above}{field.alias or name}"
        section, of_names = _section(field.annotation), _of_names(field.annotation)
        if section is None:
            yield path, _kind(field.annotation), _field_default(field), field.description or ""
            if of_names is not None:
                yield from _settings(of_names, f"{path}.NAME.", once)
            continue
        if type(None) in typing.get_args(field.annotation):
            yield path, "section", "none", field.description or sentence(section.__doc__)
        if section not in once or not above:
            yield from _settings(section, f"{path}.", once)


def _of_names(annotation: typing.Any) -> type[BaseModel] | None:
    """Return what each of the names that users give has, if they have settings."""
    for kind in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(kind) is dict and (section := _section(typing.get_args(kind)[1])):
            return section
    return None


def _section(annotation: typing.Any) -> type[BaseModel] | None:
    """Return the settings that a setting consists of, if it does."""
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel) and typing.get_origin(annotation) not in (list, dict):
            return kind
    return None


def _kind(annotation: typing.Any) -> str:
    names = {str: "text", int: "integer", float: "number", bool: "boolean", Path: "path", type(None): ""}
    if annotation in names:
        return names[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:  # what checks it is no type
        return _kind(arguments[0])
    if origin is typing.Literal:
        return ", ".join(map(code, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(filter(None, map(_kind, arguments)))
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return "names with values"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "{" + ", ".join(annotation.model_fields) + "}"
    return str(annotation)


def _field_default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "needed" if field.default_factory is None else ""
    if field.default in (None, ""):
        return ""
    value = str(field.default) if isinstance(field.default, Path) else field.default
    return _value(value)


# ----------------------------------------------------------------------------------------------------------- commands


def commands_part() -> Iterator[str]:
    yield "## Commands"
    yield ""
    yield "A command about a model has its name first, as in `mlops build-model churn`; without one it means"
    yield "`stock_price`, as here."
    yield "Exit status: 0 done, 1 the work failed, 2 refused before any work, 130 or 143 stopped."
    root = typer.main.get_command(app)
    for path, command in _commands(root, "mlops"):
        yield ""
        yield f"### {path}"
        yield ""
        yield sentence(command.help)
        example = next((line.strip() for line in (command.help or "").splitlines() if "Example:" in line), None)
        if example:
            yield from ("", f"Example: `{example.removeprefix('Example: ')}`")
        options = [one for one in command.params if one.name != "help" and not _is_a_steps(one)]
        if options:
            yield from table(("option", "what it says"), ((_names(one), _help(one)) for one in options))
        known = [_names(one) for one in command.params if _is_a_steps(one)]
        if known:
            yield f"And the parameters of its [steps](#pipelines): {', '.join(known)}."


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.commands:
            # What is of a model is that of the model meant.
            _, one, _ = command.resolve_command(click.Context(command), [name])
            assert one is not None
            yield from _commands(one, f"{path} {name}")


def _is_a_steps(one: click.Parameter) -> bool:
    return any(parameter.description in (getattr(one, "help", None) or "") for parameter in parameters_of(MODEL))


def _names(one: click.Parameter) -> str:
    if isinstance(one, click.Argument):
        return code((one.name or "").upper())
    return ", ".join(map(code, (*one.opts, *one.secondary_opts)))


def _help(one: click.Parameter) -> str:
    words = [sentence(getattr(one, "help", None))]
    if one.required:
        words.append("Needed.")
    elif (shown := getattr(one, "show_default", None)) and isinstance(shown, str):
        words.append(f"Default: {shown}.")
    elif shown is not False and one.default not in (None, False, ...) and not callable(one.default):
        words.append(f"Default: {one.default}.")
    if envvar := getattr(one, "envvar", None):
        words.append(f"Or `{envvar}` in the environment.")
    return " ".join(filter(None, words))


# ---------------------------------------------------------------------------------------------------------------------


def reference() -> str:
    """Return the whole page."""
    parts = (pipelines_part, tables_part, dagster_part, declaration_part, settings_part, commands_part)
    text = "\n".join([HEAD, *("\n".join([*part(), ""]) for part in parts)])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=sentence(__doc__))
    arguments.add_argument("--check", action="store_true", help="change nothing; fail if the page isn't up to date")
    check = arguments.parse_args().check
    for name in [name for name in os.environ if name.startswith("MLOPS_")]:
        del os.environ[name]  # the defaults are what the page is about
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)  # whose deployments/ is none
        logging.disable(logging.INFO)
        written = reference()
    if not check:
        REFERENCE.write_text(written)
        return
    stands = REFERENCE.read_text() if REFERENCE.exists() else ""
    differences = difflib.unified_diff(stands.splitlines(), written.splitlines(), "docs/reference.md", "the code", n=0)
    if shown := "\n".join(differences):
        sys.exit(f"{shown}\ndocs/reference.md isn't what the code says. Renew it: make reference")


if __name__ == "__main__":
    main()
