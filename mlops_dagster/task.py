"""`mlops-task`: what a Databricks task runs for Dagster Pipes. One step, and its report sent home.

`dagster_pipes` has no dependencies: Dagster needn't be installed. Nothing secret is among the arguments: the names of
secrets are, and the values come from the workspace's scopes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError, ParameterError, json_given, needs
from mlops_dagster.process_settings import collect_rarely, wait_quietly

if TYPE_CHECKING:
    from dagster_pipes import PipesContext
SECONDS_BETWEEN_MESSAGES = 3.0
_CONTEXT, _MESSAGES = "DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES"


class TaskError(MlopsError):
    """The task was called in a way that can't be; the message says how to."""

    exit_status = 2


def main(argv: Sequence[str] | None = None) -> None:
    """Run one step as Dagster Pipes asks, or the steps of many partitions.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, see ``mlops-task --help``. What isn't given is taken from the extras of the Pipes session, under
        the same name and as a JSON value. Not given: the process's own.

    Raises
    ------
    Exception
        What the step raises, after it was reported: so Databricks' run fails, too, and shows the traceback.
    """
    arguments = _parser().parse_args(argv)
    collect_rarely()
    wait_quietly()
    _stop_politely()
    with _open_pipes(arguments) as pipes:
        from mlops_dagster.steps.report_pieces import failure_message

        try:
            _run(_request(arguments, pipes), pipes)
        except BaseException as error:
            pipes.report_custom_message(failure_message(error))
            raise


def _run(request: dict[str, Any], pipes: PipesContext) -> None:
    from mlops_dagster.stack.databricks.scopes import fetch_secrets
    from mlops_dagster.stack.databricks.versions import check_versions

    check_versions(request["expected"])
    os.environ.update(request["environment"])
    os.environ.update(fetch_secrets(request["secrets"]))

    from mlops_dagster.session import Session
    from mlops_dagster.spec.project import find_model
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.stack.tracking import Origin
    from mlops_dagster.steps.progress import ProgressLines
    from mlops_dagster.steps.report_pieces import to_pieces

    of, _, step = request["step"].rpartition("/")
    deployment, model, origin = load_deployment(), find_model(of), Origin(**request["origin"])
    if request["tasks"]:
        _run_many(deployment, model, origin, request, pipes)
        return
    with Session(deployment, model, origin) as session:
        report = session.run(
            step,
            request["symbol"],
            request["given"],
            inputs=request["inputs"],
            progress=ProgressLines(pipes.log.info),
        )
    if report.metrics:
        pipes.log.info(f"{step}: {report.metrics}")
    for piece in to_pieces(report):
        pipes.report_custom_message(piece)


def _run_many(deployment: Any, model: Any, origin: Any, request: dict[str, Any], pipes: PipesContext) -> None:
    """Run the steps for many partitions on the cores of this machine, and say what came of each as it is done."""
    from mlops_dagster.chains import Chain, Outcome, Task
    from mlops_dagster.pool import run_partitions
    from mlops_dagster.steps.report_pieces import pieces_of

    def receive(outcome: Outcome) -> None:
        for piece in pieces_of(outcome.to_json(), "outcome"):
            pipes.report_custom_message(piece)

    tasks = [Task(one, tuple(steps), *more) for one, steps, *more in request["tasks"]]
    chain = Chain(deployment, model, origin, request["given"], len(tasks), checked=True)
    run_partitions(chain, tasks, receive)


# ------------------------------------------------------------------------------------------------------- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mlops-task", description="Run one step for Dagster Pipes, on Databricks.", allow_abbrev=False
    )
    parser.add_argument("--step", help="for example churn/trained_model")
    parser.add_argument("--symbol", help="the model's partition, or all")
    parser.add_argument("--given", type=_json, help="the step's parameters, as JSON")
    parser.add_argument("--inputs", type=_json, help="tables that the run has made, as JSON: the reports' outputs")
    parser.add_argument("--environment", type=_json, help="environment variables of the deployment, as JSON")
    parser.add_argument("--secrets", type=_json, help="JSON: [{name: variable, scope: ..., key: ...}]")
    parser.add_argument("--expected", type=_json, help="versions of the machine that sends the step, as JSON")
    parser.add_argument("--origin", type=_json, help="JSON: {orchestrator: ..., run_id: ..., url: ...}")
    parser.add_argument("--dagster-pipes-context", help="added by Dagster Pipes, if not an environment variable")
    parser.add_argument("--dagster-pipes-messages", help="added by Dagster Pipes, if not an environment variable")
    return parser


def _json(text: str) -> Any:
    try:
        return json_given("value", text, "give it as `Pipes` does.")
    except ParameterError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _request(arguments: argparse.Namespace, pipes: PipesContext) -> dict[str, Any]:
    """Return what is to be done: from the command line or, since its length is limited, from the session's extras."""
    request: dict[str, Any] = {
        "given": {},
        "inputs": {},
        "environment": {},
        "secrets": [],
        "expected": {},
        "tasks": [],
        **pipes.extras,
    }
    request |= {name: value for name, value in vars(arguments).items() if value is not None}
    if missing := [name for name in ("step", "symbol", "origin") if not request.get(name)]:
        raise TaskError(f"{', '.join(f'--{name}' for name in missing)} isn't given.")
    return request


def _open_pipes(arguments: argparse.Namespace) -> PipesContext:
    try:
        from dagster_pipes import PipesMappingParamsLoader, PipesUnityCatalogVolumesContextLoader, open_dagster_pipes
    except ModuleNotFoundError as error:
        raise TaskError(needs("mlops-task", error)) from None

    # On a new cluster they are environment variables, everywhere else arguments.
    given = {_CONTEXT: arguments.dagster_pipes_context, _MESSAGES: arguments.dagster_pipes_messages}
    params = {name: value or os.environ.get(name) for name, value in given.items()}
    if missing := [name for name, value in params.items() if not value]:
        raise TaskError(
            f"{' and '.join(missing)} isn't set: this command is for Dagster Pipes. Without Dagster, call `mlops`."
        )
    return open_dagster_pipes(
        params_loader=PipesMappingParamsLoader({name: str(value) for name, value in params.items()}),
        context_loader=PipesUnityCatalogVolumesContextLoader(),
        message_writer=_message_writer(),
    )


def _message_writer() -> Any:
    from dagster_pipes import PipesBufferedFilesystemMessageWriterChannel, PipesUnityCatalogVolumesMessageWriter

    class WholeFiles(PipesBufferedFilesystemMessageWriterChannel):
        """Its files appear when they are complete: the reader at home reads each once, whatever is in it by then."""

        def upload_messages_chunk(self, payload: Any, index: int) -> None:
            unfinished = Path(self._path) / f"{index}.part"
            unfinished.write_text(payload.read(), encoding="utf-8")
            unfinished.replace(Path(self._path) / f"{index}.json")

    class Writer(PipesUnityCatalogVolumesMessageWriter):
        def make_channel(self, params: Any) -> Any:
            return WholeFiles(params["path"], interval=self.interval)

    return Writer(interval=SECONDS_BETWEEN_MESSAGES)


def _stop_politely() -> None:
    """Let a cancelled run end its MLflow run as KILLED, where the cluster gives it the time."""
    if threading.current_thread() is threading.main_thread():
        with suppress(ValueError):  # an interpreter below another program's
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


if __name__ == "__main__":
    main()
