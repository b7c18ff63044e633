"""Steps on Databricks by Dagster Pipes: new or existing clusters, and serverless."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_dagster.chains import GivenByStep, Outcome, Receive, Task
from mlops_dagster.compute.failures import URL, to_failure
from mlops_dagster.compute.inputs import inputs_of, partition_of
from mlops_dagster.compute.local import dagster_origin
from mlops_dagster.compute.report import to_result
from mlops_dagster.compute.submission import (
    Log,
    StepRequest,
    libraries,
    machines,
    refuse_what_stays,
    warn_of_what_stays,
)
from mlops_dagster.stack.databricks import runs
from mlops_dagster.stack.databricks.run_states import DatabricksRunError
from mlops_dagster.stack.databricks.travel import remote_environment
from mlops_dagster.stack.databricks.versions import versions
from mlops_dagster.stack.databricks.wheel import NAME, build_wheel, requirements_of
from mlops_dagster.stack.databricks.workspace import connect
from mlops_dagster.stack.store import store_of
from mlops_dagster.steps.report_pieces import Assembly, IncompleteReport, RemoteFailure, from_pieces

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment
    from mlops_dagster.steps import StepReport

ENVIRONMENT = "mlops"  # the key of the serverless environment within a run


@dataclass
class _Said:
    """What a task has said, and where its run is shown."""

    messages: list[Any] = field(default_factory=list)
    url: str | None = None


class Pipes:
    """Runs each step as a Databricks run of its own, and reads its report from messages.

    Parameters
    ----------
    deployment : Deployment
        The settings of the stack.
    model : Declaration
        Whose steps are run.

    Raises
    ------
    TravelError
        If the deployment can't be sent there without a secret. Nothing is connected yet.
    """

    def __init__(self, deployment: Deployment, model: Declaration) -> None:
        assert deployment.databricks is not None
        assert deployment.databricks.staging is not None
        self.deployment, self.settings, self.model = deployment, deployment.databricks, model
        self.defs = model.folder.parent
        self.staging = deployment.databricks.staging.rstrip("/")
        self.environment = remote_environment(deployment)

    @cached_property
    def client(self) -> WorkspaceClient:
        """The workspace; credentials are looked for when the first step runs."""
        return connect(self.settings)

    def run(
        self, context: dg.AssetExecutionContext, step: str, given: Mapping[str, object]
    ) -> dg.MaterializeResult[None]:
        """Run the step there, see :class:`mlops_dagster.compute.local.Compute`.

        Raises
        ------
        dagster.Failure
            If it failed, with what it said there; or if it says that it succeeded, but not all it made known arrived.
        """
        inputs = inputs_of(context.get_step_execution_context(), store_of(self.deployment, self.model).root, self.model)
        more = {"inputs": inputs, "given": {name: value for name, value in given.items() if value is not None}}
        with self._failing_well() as said:
            self._submit(context, step, partition_of(context), more, said)
            report = from_pieces(said.messages)
        return _result(report, said.url, self.model)

    def run_many(
        self, context: dg.AssetExecutionContext, tasks: Sequence[Task], given: GivenByStep, receive: Receive
    ) -> None:
        """Run all of them as one Databricks run; what comes of each is told while the run goes on."""
        assembly, told = Assembly("outcome"), set()

        def hear(messages: Sequence[Any]) -> None:
            for message in messages:
                # Databricks may repeat the task: what was told once is made.
                if (text := assembly.take(message)) and (outcome := Outcome.from_json(text)).partition not in told:
                    told.add(outcome.partition)
                    receive(outcome)

        more = {"tasks": tasks, "given": given}
        names = tasks[0].partition + (f" and {len(tasks) - 1} more" if len(tasks) > 1 else "")
        with self._failing_well() as said:
            self._submit(context, tasks[0].steps[0], names, more, said, hear)
            if lost := [one.partition for one in tasks if one.partition not in told]:
                raise IncompleteReport(f"nothing was heard of {', '.join(lost)}; re-execute the run from failure.")

    @contextmanager
    def _failing_well(self) -> Iterator[_Said]:
        said = _Said()
        try:
            yield said
        except (DatabricksRunError, IncompleteReport, RemoteFailure) as error:
            raise to_failure(_reason(error, said.messages), said.url) from error

    def _submit(
        self,
        context: dg.AssetExecutionContext,
        step: str,
        partition: str,
        more: Mapping[str, Any],
        said: _Said,
        hear: Callable[[Sequence[Any]], None] = lambda messages: None,
    ) -> None:
        """Run a task there, and wait for it; `hear` is told what is new of what it says."""
        from mlops_dagster.compute.pipes_clients import running

        step_context = context.get_step_execution_context()
        refuse_what_stays(step_context, self.deployment, self.model)
        request = StepRequest(step_context.step.key, partition, context.run, context.retry_number)
        warn_of_what_stays(self.deployment, context.log.warning)
        wheel = ship(self.client, self.staging, context.log.info, self.defs)
        task, environments = self._task(wheel, ["--step", f"{self.model.name}/{step}", "--symbol", partition])
        heard = 0

        def new(messages: Sequence[Any]) -> None:
            nonlocal heard
            hear(messages[heard:])
            heard = len(messages)

        with self._folder(request, context.log.warning) as folder:
            to_run = running(
                self.client,
                self.settings,
                context,
                request,
                task,
                folder=folder,
                extras={**self._extras(context), **more},
                messages=said.messages,
                **environments,
            )
            try:
                with to_run as (run, arrived):
                    said.url = run.url
                    run.wait(on_poll=lambda seen: new(arrived()))
            finally:
                new(said.messages)

    def _extras(self, context: dg.AssetExecutionContext) -> dict[str, Any]:
        """Return what the task finds in its context: the length of a task's parameters is limited, this isn't."""
        origin = dagster_origin(context, self.deployment)
        return {
            "environment": self.environment,
            "secrets": [secret.model_dump() for secret in self.settings.secrets],
            "expected": versions("dagster-pipes", defs=self.defs),
            "origin": asdict(origin),
        }

    def _task(self, wheel: str, arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        task: dict[str, Any] = {
            "python_wheel_task": {"package_name": NAME, "entry_point": "mlops-task", "parameters": arguments}
        }
        required = requirements_of(self.deployment)
        serverless = self.settings.cluster.serverless
        if serverless is None:
            return {**task, **machines(self.settings), "libraries": libraries(required, wheel)}, {}
        from databricks.sdk.service.jobs import JobEnvironment

        spec = {"environment_version": serverless.environment_version, "dependencies": [wheel, *required]}
        environment = JobEnvironment.from_dict({"environment_key": ENVIRONMENT, "spec": spec})
        return {**task, "environment_key": ENVIRONMENT}, {"environments": [environment]}

    @contextmanager
    def _folder(self, request: StepRequest, log: Log) -> Iterator[str]:
        """Give the step a folder of its own for context and messages, empty at first and gone afterwards."""
        from mlops_dagster.compute.pipes_clients import remove

        folder = f"{self.staging}/steps/{request.root}/{request.step}"
        # Before anything is staged that they could write into.
        runs.end_leftovers(self.client, request.name, log)
        remove(self.client, folder, log)  # a worker that died may have left it
        try:
            yield folder
        finally:
            remove(self.client, folder, log)
            remove_if_empty(self.client, folder.rsplit("/", 1)[0], log)


def ship(client: WorkspaceClient, staging: str, log: Log, defs: Path | None = None) -> str:
    """Upload the wheel of this package unless it is there already, and return its path on the volume.

    With it go the declared models in `defs`. Its name says what is in it, so it is uploaded once and stays: other runs
    use it.
    """
    from databricks.sdk.errors import NotFound

    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder), defs=defs)
        path = f"{staging}/wheels/{wheel.name}"
        try:
            there = client.files.get_metadata(path).content_length
        except NotFound:
            there = None
        if there != wheel.stat().st_size:  # an upload that broke off is repeated
            log(f"Uploading {path}")
            client.files.create_directory(f"{staging}/wheels")
            with wheel.open("rb") as content:
                client.files.upload(path, content, overwrite=True)
        return path


def remove_if_empty(client: WorkspaceClient, folder: str, log: Log) -> None:
    """Remove the folder of a run when its last step is over."""
    from databricks.sdk.errors.base import DatabricksError

    try:
        if not any(True for _ in client.files.list_directory_contents(folder)):
            client.files.delete_directory(folder)
    except DatabricksError as error:
        log(f"{folder} couldn't be removed and stays: {error}")


def _reason(error: Exception, messages: list[Any]) -> Exception:
    """Return what the step itself said, if it did; Databricks only knows that it failed."""
    if isinstance(error, DatabricksRunError):
        try:
            from_pieces(messages)
        except RemoteFailure as its_own:
            return its_own
        except IncompleteReport:
            pass
    return error


def _result(report: StepReport, url: str | None, model: Declaration) -> dg.MaterializeResult[None]:
    result = to_result(report, model)
    metadata: dict[str, Any] = dict(result.metadata or {})
    return result._replace(metadata={**metadata, URL: dg.MetadataValue.url(str(url))})
