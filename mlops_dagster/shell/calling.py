"""What a program that calls `mlops` says besides the command: a Databricks job, a DAG of Airflow."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_dagster.errors import ParameterError, json_given
from mlops_dagster.spec.parameters import Parameter

if TYPE_CHECKING:
    from mlops_dagster.stack.tracking import Origin

Environment = Annotated[
    str | None,
    typer.Option(help="For jobs: environment variables to set first, as JSON {NAME: value}.", show_default=False),
]
Secrets = Annotated[
    str | None,
    typer.Option(
        help="For jobs on Databricks: secrets of the workspace that become environment variables, as JSON "
        "[{name: ..., scope: ..., key: ...}].",
        show_default=False,
    ),
]
Caller = Annotated[
    str | None,
    typer.Option(
        "--origin",
        help="For jobs: who calls, as JSON {orchestrator: ..., run_id: ..., url: ..., attempt: ...}; MLflow shows it.",
        show_default=False,
    ),
]

_called_by: dict[str, Any] = {}


def flags_of(parameters: Iterable[Parameter]) -> set[str]:
    """Return the options of those parameters that are either true or false."""
    return {f"--{one.name.replace('_', '-')}" for one in parameters if one.kind == "boolean"}


def plain_arguments(arguments: Sequence[str], flags: Collection[str] = ()) -> list[str]:
    """Return arguments as people would write them.

    A job has one fixed line of arguments, with a place for each parameter. What is left empty there counts as not
    given, and a parameter that is a flag has a value.

    Examples
    --------
    >>> plain_arguments(["--symbol=GSPC", "--max-depth=", "--bootstrap=false"], {"--bootstrap"})
    ['--symbol=GSPC', '--no-bootstrap']
    """
    plain = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and equals and not value.strip():
            continue
        if name in flags and value.lower() in ("true", "false"):
            plain.append(name if value.lower() == "true" else name.replace("--", "--no-", 1))
        else:
            plain.append(argument)
    return plain


def apply_caller_options(environment: str | None, secrets: str | None, caller: str | None) -> None:
    """Do what the options before the command's name say.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If one isn't JSON of the right form. Values aren't repeated.
    """
    for name, value in _json("environment", environment, dict, "an object of names and values").items():
        os.environ[name] = value if isinstance(value, str) else json.dumps(value)
    wanted = _json("secrets", secrets, list, "a list of objects with name, scope and key")
    if any(not isinstance(one, dict) or set(one) != {"name", "scope", "key"} for one in wanted):
        raise ParameterError("secrets: give a list of objects with name, scope and key.")
    if wanted:
        from mlops_dagster.stack.databricks.scopes import fetch_secrets

        os.environ.update(fetch_secrets(wanted))
    said = _json("origin", caller, dict, "an object with orchestrator, run_id and perhaps url")
    if said and not ({"orchestrator", "run_id"} <= set(said) <= {"orchestrator", "run_id", "url", "attempt"}):
        raise ParameterError("origin: give an object with orchestrator, run_id and perhaps url and attempt.")
    if type(said.get("attempt", 1)) is not int:
        raise ParameterError(f"origin: attempt={said['attempt']!r}: give an integer, 1 for the first.")
    _called_by.clear()
    _called_by.update(said)


def _json(name: str, text: str | None, kind: type, form: str) -> Any:
    if text is None:
        return kind()
    value = json_given(name, text, f"give {form}.")
    if not isinstance(value, kind):
        raise ParameterError(f"{name}: give {form}.")
    return value


def shell_origin() -> Origin:
    """Return who has the runs of this command tracked: whoever calls, or this shell."""
    from mlops_dagster.stack.tracking import Origin

    if _called_by:
        return Origin(**_called_by)
    return Origin("shell", str(uuid.uuid4()), None)
