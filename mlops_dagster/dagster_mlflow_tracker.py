"""dagster-mlflow's resource `mlflow_tracking` in place of our own tracker, behind the same interface.

What differs for those who choose it (``tracking.client: dagster-mlflow``): there is one MLflow run per Dagster run,
not one per training; it works inside of Dagster only; and it goes through MLflow's global state, so the global
tracking URI is set for the whole process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mlops_dagster.stack import open_runs
from mlops_dagster.stack.mlflow_connection import TrackingError, reach, tracking_errors
from mlops_dagster.stack.open_runs import reap_abandoned_runs
from mlops_dagster.stack.tracking import MlflowTracker, TrackedRun

if TYPE_CHECKING:
    from dagster import InitResourceContext

    from mlops_dagster.stack.open_runs import Status
    from mlops_dagster.stack.tracking import Origin

FAILED_STEP = "failed_step."


class DagsterMlflowTracker(MlflowTracker):
    """Tracks into the MLflow run that dagster-mlflow keeps for a Dagster run.

    Parameters
    ----------
    context : InitResourceContext
        Of the Dagster resource that this tracker is made by; dagster-mlflow takes the Dagster run from it.
    experiment_name, tracking_uri, **settings
        As for :class:`MlflowTracker`.
    """

    run_id_tag = "dagster_run_id"

    def __init__(
        self, experiment_name: str, tracking_uri: str, *, context: InitResourceContext, **settings: Any
    ) -> None:
        super().__init__(experiment_name, tracking_uri, **settings)
        self._context = context

    @contextmanager
    def run(self, name: str, *, origin: Origin, tags: Mapping[str, str]) -> Iterator[TrackedRun]:
        """Begin, or join, the MLflow run of the Dagster run.

        Its status is that of its steps so far: FINISHED once one has, FAILED as long as one has failed. The sensors
        set it to the Dagster run's when that has ended.

        Parameters
        ----------
        name : str
            The tracked step's, for its status; the MLflow run itself is named after the job.

        Raises
        ------
        TrackingError
            Outside of a Dagster run, or if MLflow can't be reached.
        """
        # dagster-mlflow would create schema and experiment without a lock.
        client, experiment_id = self.connect()
        reap_abandoned_runs(self.state_dir, self.tracking_uri)
        with _active_runs_set_aside():
            with self._one_at_a_time():
                run_id = self._start()
            note = open_runs.Note(self.tracking_uri, self.experiment_name, f"attributes.run_id = '{run_id}'")
            with open_runs.hold(self.state_dir, note) as opened:
                run_tags = self._tags(origin, tags)
                url = self.url(experiment_id, run_id)
                run = TrackedRun(client, run_id, experiment_id, url, self._child_tags(run_tags))
                with self._ending(run, name, opened):
                    run.set_tags(run_tags)
                    yield run

    def _one_at_a_time(self) -> FileLock:
        # dagster-mlflow searches its run and creates it if there is none: parallel steps would create several.
        self.state_dir.mkdir(parents=True, exist_ok=True)
        return FileLock(self.state_dir / "dagster_mlflow.lock")

    def _start(self) -> str:
        import mlflow

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # see below
            from dagster_mlflow import mlflow_tracking

        if self._context.run is None:
            raise TrackingError(
                "tracking.client='dagster-mlflow' works inside of a Dagster run only; elsewhere give 'mlops'."
            )
        config = {
            "experiment_name": self.experiment_name,
            "mlflow_tracking_uri": self.tracking_uri,
            "env": self.env,
            # It would log those that aren't set as "None".
            "env_to_tag": [name for name in self.env_to_tag if name in os.environ],
            # As a tag: given as parent_run_id, it sets the parent RUNNING and leaves it the global active run.
            "extra_tags": self.extra_tags
            | ({} if self.parent_run_id is None else {"mlflow.parentRunId": self.parent_run_id}),
        }
        with tracking_errors("beginning a run with dagster-mlflow", self.tracking_uri), warnings.catch_warnings():
            # That it's beta, and that it uses names of Dagster's which are going: nobody here can do anything about it.
            warnings.simplefilter("ignore")
            next(mlflow_tracking.resource_fn(self._context.replace_config(config)))  # type: ignore[call-arg]
            active = mlflow.active_run()
        assert active is not None
        return str(active.info.run_id)

    def _end(self, run: TrackedRun, name: str, status: Status) -> None:
        import mlflow

        client = reach(self.tracking_uri)
        tag = FAILED_STEP + name
        with self._one_at_a_time(), tracking_errors(f"ending run {run.run_id} ({status})", self.tracking_uri):
            failed = {key for key in client.get_run(run.run_id).data.tags if key.startswith(FAILED_STEP)}
            if status != "FINISHED":
                client.set_tag(run.run_id, tag, status)
            elif tag in failed:
                client.delete_tag(run.run_id, tag)  # it was tried again, with success
            if status == "FINISHED" and failed - {tag}:
                status = "FAILED"
            with contextlib.redirect_stdout(sys.stderr):
                while mlflow.active_run() is not None:
                    mlflow.end_run(status)


@contextmanager
def _active_runs_set_aside() -> Iterator[None]:
    """Hide this thread's active runs: dagster-mlflow would log into one that is there, whoever's it is."""
    from mlflow.tracking import fluent

    stack = fluent._active_run_stack.get()  # type: ignore[no-untyped-call]
    hidden = stack[:]
    stack.clear()
    try:
        yield
    finally:
        stack[:] = hidden
