"""Steps on Databricks by dagster-databricks' step launcher: Dagster itself runs the asset's body there.

Its own `launch_step` zips whatever lies in the package's folder, takes a skipped run for a success, may leave a run
behind that nobody watches, lets one idempotency token serve all steps, and never removes what it staged. Only imported
when a run needs it, since dagster_databricks takes a second.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.code_pointer import CodePointer, ModuleCodePointer, PackageCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.definitions.step_launcher import StepRunRef
from dagster._core.errors import DagsterExecutionStepExecutionError
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.plan.external_step import PICKLED_STEP_RUN_REF_FILE_NAME, step_context_to_step_run_ref
from dagster._core.execution.plan.utils import op_execution_error_boundary
from dagster._utils import iterate_with_context
from dagster_databricks.databricks import DatabricksClient
from dagster_databricks.databricks_pyspark_step_launcher import (
    CODE_ZIP_NAME,
    PICKLED_CONFIG_FILE_NAME,
    DatabricksPySparkStepLauncher,
)

from mlops_dagster.compute import step_main
from mlops_dagster.compute.failures import URL, to_failure
from mlops_dagster.compute.inputs import hand_on, inputs_of, partition_of
from mlops_dagster.compute.step_events import StepEvents
from mlops_dagster.compute.submission import (
    StepRequest,
    Submitted,
    libraries,
    machines,
    refuse_what_stays,
    submitted,
    warn_of_what_stays,
)
from mlops_dagster.stack.databricks import runs
from mlops_dagster.stack.databricks.run_states import DatabricksRunError
from mlops_dagster.stack.databricks.travel import remote_environment
from mlops_dagster.stack.databricks.versions import versions
from mlops_dagster.stack.databricks.wheel import build_wheel, requirements_of
from mlops_dagster.stack.databricks.workspace import connect
from mlops_dagster.stack.store import store_of
from mlops_dagster.steps.report_pieces import RemoteFailure

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment

NOTE = "failure.json"


class StepLauncher(DatabricksPySparkStepLauncher):
    """Sends each step that requires it to Databricks.

    Parameters
    ----------
    deployment : Deployment
        The settings of the stack.
    refuse_bad_run : callable
        Raises if a run's config can't be; takes the run and the partition.
    model : Declaration
        Whose steps are run.

    Raises
    ------
    TravelError
        If the deployment can't be sent there without a secret. Nothing is connected yet.
    """

    def __init__(
        self,
        deployment: Deployment,
        model: Declaration,
        refuse_bad_run: Callable[[dg.DagsterRun, str], None],
    ) -> None:
        # Not theirs, which makes a client of its own and can't tell which of two kinds of credentials is meant.
        assert deployment.databricks is not None
        self.deployment, self.settings, self.refuse_bad_run = deployment, deployment.databricks, refuse_bad_run
        self.model = model
        self.staging_prefix = (deployment.databricks.staging or "/dagster_staging").rstrip("/")
        self.env_variables = remote_environment(deployment)
        self.secrets = [secret.model_dump() for secret in self.settings.secrets]
        self.storage = {}
        self.add_dagster_env_variables = True

    @cached_property
    def client(self) -> WorkspaceClient:
        """The workspace; credentials are looked for when the first step runs."""
        return connect(self.settings)

    @cached_property
    def databricks_runner(self) -> Any:  # type: ignore[override]
        """What of their job runner their methods use."""
        return _Runner(self.client)

    def launch_step(self, step_context: StepExecutionContext) -> Iterator[DagsterEvent]:
        """Run a step there and yield its events; whatever ends this ends the Databricks run."""

        def boundary() -> Any:
            # Interrupts, retry policies and failures mean what they mean for a step that runs here.
            return op_execution_error_boundary(
                DagsterExecutionStepExecutionError,
                msg_fn=lambda: f"Error sending step {step_context.step.key} to Databricks",
                step_context=step_context,
                step_key=step_context.step.key,
                op_def_name=step_context.op_def.name,
                op_name=step_context.op.name,
            )

        yield from iterate_with_context(boundary, self._launch(step_context))

    def _launch(self, step_context: StepExecutionContext) -> Iterator[DagsterEvent]:
        run, step_key, log = step_context.dagster_run, step_context.step.key, step_context.log
        partition = partition_of(step_context)
        self.refuse_bad_run(run, partition)
        refuse_what_stays(step_context, self.deployment, self.model)
        # Its own instance there will know of no run but this, and of no event before the step's.
        inputs = inputs_of(step_context, store_of(self.deployment, self.model).root, self.model)
        step_run_ref = portable(step_context_to_step_run_ref(step_context), inputs)
        request = StepRequest(step_key, partition, run, step_context.previous_attempt_count)
        warn_of_what_stays(self.deployment, log.warning)
        runs.end_leftovers(self.client, request.name, log.info)
        with self._staged(run, step_key, log):
            self._upload_artifacts(log, step_run_ref, run.run_id, step_key)
            events = StepEvents(step_context, self.get_step_events)
            try:
                task = {**self._get_databricks_task(run.run_id, step_key), **machines(self.settings)}
                task["libraries"] = libraries(requirements_of(self.deployment))
                with submitted(self.client, self.settings, request, task, log=log.info) as submitted_run:
                    yield self._submitted_event(step_context, submitted_run)
                    events.url = submitted_run.url
                    submitted_run.wait(on_poll=lambda seen: events.forward())
                yield from events.last()
            except DatabricksRunError as error:
                if failed := events.failure():
                    yield from failed
                    return
                raise to_failure(self._note(run.run_id, step_key) or error, error.url) from error
            finally:
                self._print(run.run_id, step_key)

    def _submitted_event(self, step_context: StepExecutionContext, run: Submitted) -> DagsterEvent:
        return DagsterEvent.from_step(
            event_type=DagsterEventType.ENGINE_EVENT,
            message=f"Waiting for Databricks run {run.run_id}",
            step_context=step_context,
            event_specific_data=EngineEventData(metadata={URL: dg.MetadataValue.url(run.url)}),
        )

    # ------------------------------------------------------------------------------------------------ what is staged

    @contextmanager
    def _staged(self, run: dg.DagsterRun, step_key: str, log: Any) -> Iterator[None]:
        """Remove what was staged for the step, here and by a run before this one whose worker died."""
        for run_id in {run.run_id, run.parent_run_id, run.root_run_id} - {None}:
            self._remove(str(run_id), step_key, log)
        try:
            yield
        finally:
            self._remove(run.run_id, step_key, log)

    def _remove(self, run_id: str, step_key: str, log: Any) -> None:
        from databricks.sdk.errors import NotFound
        from databricks.sdk.errors.base import DatabricksError

        folder = Path(self._dbfs_path(run_id, step_key, "-").removeprefix("dbfs://")).parent

        def delete(path: Path, *, recursive: bool) -> None:
            # Not `dbfs.delete`, which refuses an empty folder.
            body = {"path": str(path), "recursive": recursive}
            self.client.api_client.do("POST", "/api/2.0/dbfs/delete", body=body)

        try:
            delete(folder, recursive=True)
            if not any(True for _ in self.client.dbfs.list(str(folder.parent))):
                delete(folder.parent, recursive=False)
        except NotFound:
            pass
        except (DatabricksError, OSError) as error:
            log.warning(f"dbfs:{folder} couldn't be removed and stays: {error}")

    def _upload_artifacts(self, log: Any, step_run_ref: StepRunRef, run_id: str, step_key: str) -> None:
        """Upload what the step needs: exactly the wheel's files as code, and nothing secret."""
        log.info(f"Uploading the step to {self._dbfs_path(run_id, step_key, '')}")
        with tempfile.TemporaryDirectory() as folder:
            code = build_wheel(Path(folder), defs=self.model.folder.parent).read_bytes()
        for name, content in {
            self._main_file_name(): Path(self._main_file_local_path()).read_bytes(),
            CODE_ZIP_NAME: code,
            PICKLED_STEP_RUN_REF_FILE_NAME: pickle.dumps(step_run_ref),
            PICKLED_CONFIG_FILE_NAME: pickle.dumps(self.create_remote_config()),
        }.items():
            path = self._dbfs_path(run_id, step_key, name)
            self.databricks_runner.client.put_file(io.BytesIO(content), path, overwrite=True)

    def _main_file_local_path(self) -> str:
        return step_main.__file__

    def _get_databricks_task(self, run_id: str, step_key: str) -> dict[str, Any]:
        expected = versions("dagster", "dagster-databricks")
        del expected["mlops_dagster"]  # its code is sent along
        notes = {"expected": expected, "failure": self._internal_dbfs_path(run_id, step_key, NOTE)}
        task: Any = super()._get_databricks_task(run_id, step_key)
        task["spark_python_task"]["parameters"].append(json.dumps(notes))
        return dict(task)

    # --------------------------------------------------------------------------------------------- what comes back

    def read(self, run_id: str, step_key: str, name: str) -> bytes | None:
        """Return a file that the step wrote, or None if it didn't."""
        from databricks.sdk.errors import NotFound

        try:
            content: bytes = self.databricks_runner.client.read_file(self._dbfs_path(run_id, step_key, name))
        except NotFound:
            return None
        return content

    def _note(self, run_id: str, step_key: str) -> RemoteFailure | None:
        try:
            return RemoteFailure(**json.loads(self.read(run_id, step_key, NOTE) or b""))
        except (ValueError, OSError):
            return None

    def _print(self, run_id: str, step_key: str) -> None:
        """Print what the step printed, for Dagster's compute log."""
        for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
            try:
                stream.write((self.read(run_id, step_key, name) or b"").decode(errors="replace"))
            except OSError as error:
                stream.write(f"The step's {name} can't be read: {error}\n")


class _Runner:
    """What of their job runner the launcher uses."""

    def __init__(self, client: WorkspaceClient) -> None:
        self.client = _Client(client)


class _Client(DatabricksClient):
    """Their client, with our credentials."""

    def __init__(self, client: WorkspaceClient) -> None:
        self._workspace_client = client


def portable(step_run_ref: StepRunRef, inputs: dict[str, dict[str, Any]]) -> StepRunRef:
    """Return a reference that holds nothing of this machine: no paths, and no settings of its containers.

    Parameters
    ----------
    step_run_ref : StepRunRef
        As Dagster makes it.
    inputs : dict
        What the step is to read, see :func:`mlops_dagster.compute.inputs.inputs_of`.

    Raises
    ------
    dagster.Failure
        If the code isn't loaded as a module, and so can't be found there.
    """
    job = step_run_ref.recon_job
    pointer: CodePointer | None = job.repository.pointer if isinstance(job, ReconstructableJob) else None
    if isinstance(pointer, ModuleCodePointer):
        elsewhere: CodePointer = ModuleCodePointer(pointer.module, pointer.fn_name, None)
    elif isinstance(pointer, PackageCodePointer):
        elsewhere = PackageCodePointer(pointer.module, pointer.attribute, None)
    else:
        raise dg.Failure(
            "the code of this run can't be loaded on a cluster: it was "
            f"{'loaded from a file' if pointer else 'made in memory'}. "
            "Load it as a module: dagster dev -m mlops_dagster.definitions, or python_module in workspace.yaml.",
            allow_retries=False,
        )
    repository = ReconstructableRepository(elsewhere, repository_load_data=job.repository.repository_load_data)
    run = hand_on(step_run_ref.dagster_run, inputs)._replace(remote_job_origin=None, job_code_origin=None)
    return step_run_ref._replace(recon_job=job._replace(repository=repository), dagster_run=run)
