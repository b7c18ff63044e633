"""Runs in MLflow, through an explicit client: how they begin, how they end, who has them tracked.

MLflow's global active run isn't used: two steps in one process, or a notebook's own run, can't log into each other.
"""

from __future__ import annotations

import getpass
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from mlops_dagster.errors import printable
from mlops_dagster.stack import open_runs
from mlops_dagster.stack.child_runs import ChildRun
from mlops_dagster.stack.mlflow_connection import (
    TrackingError,
    TrackingServerNotFound,
    ensure_experiment,
    probe,
    reach,
    safe_uri,
    sqlite_file,
    tracking_errors,
)
from mlops_dagster.stack.open_runs import reap_abandoned_runs
from mlops_dagster.stack.registry import Registry
from mlops_dagster.stack.secrets import redacted
from mlops_dagster.stack.tracked_run import LoggedModel, TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlops_dagster.stack.open_runs import Status

__all__ = [
    "ChildRun",
    "LoggedModel",
    "MlflowTracker",
    "Origin",
    "TrackedRun",
    "Tracker",
    "TrackingError",
    "artifact_url",
    "reap_abandoned_runs",
]

logger = logging.getLogger(__name__)

MODEL_TRAINING = "workflowType=machine_learning"
"""In an address of MLflow's pages: the view for trained models, not the one for language models."""


_AWAY_SECONDS = 60.0
"""How long a run of many waits for a server that has gone away: it is being started again."""


@dataclass(frozen=True)
class Origin:
    """Who has a run tracked.

    Parameters
    ----------
    orchestrator : str
        "dagster", "airflow", "shell", ...
    run_id : str
        The orchestrator's own id of its run.
    url : str, optional
        Where that run can be looked at.
    attempt : int
        The how many-th attempt of its run this is: above 1 if the orchestrator has given up the ones before.
    resumes : sequence of str
        The ids of the orchestrator's runs that this one goes on with, since they have failed.
    """

    orchestrator: str
    run_id: str
    url: str | None = None
    attempt: int = 1
    resumes: Sequence[str] = ()


class Tracker(Protocol):
    """What a step needs of a tracker."""

    def run(self, name: str, *, origin: Origin, tags: Mapping[str, str]) -> AbstractContextManager[TrackedRun]:
        """Begin a run; it ends with the context, FINISHED, FAILED or KILLED."""
        ...

    def check(self) -> None:
        """Make sure that MLflow can be reached."""
        ...

    def wait_for_server(self) -> bool:
        """Wait for an MLflow server that has gone away; return whether it is back."""
        ...

    @property
    def registry(self) -> Registry:
        """The registered models of the same MLflow."""
        ...

    def version_url(self, symbol: str, version: str) -> str | None:
        """Return where people look at a version of a symbol's registered model."""
        ...


class MlflowTracker:
    """Tracks runs in one experiment of one MLflow.

    Making one does nothing; the first run creates what is missing.

    Parameters
    ----------
    experiment_name : str
        Created if it's missing.
    tracking_uri : str
        An MLflow server's URL, or a database: ``sqlite:////absolute/path/mlflow.db``.
    state_dir : Path
        A folder on this machine's own disk, for the notes of open runs.
    artifact_location : str, optional
        Where a new experiment keeps its artifacts. Not given: as the server says; for SQLite, beside the database.
    parent_run_id : str, optional
        The MLflow run that the runs are nested below.
    env : mapping, optional
        Environment variables for MLflow, such as its credentials.
    env_to_tag : iterable of str
        Environment variables that become tags, where they are set.
    ui_url : str, optional
        Where people open MLflow, if that isn't the tracking URI.
    registered_model : str
        The name of a symbol's registered model, with ``{symbol}`` in it.
    """

    # The tag by which the runs of an orchestrator's run are found again.
    run_id_tag = "orchestrator_run_id"

    def __init__(
        self,
        experiment_name: str,
        tracking_uri: str,
        *,
        state_dir: str | Path,
        artifact_location: str | None = None,
        parent_run_id: str | None = None,
        env: Mapping[str, str] | None = None,
        env_to_tag: Iterable[str] = (),
        extra_tags: Mapping[str, str] | None = None,
        ui_url: str | None = None,
        registered_model: str = "mlops_dagster.{symbol}",
    ) -> None:
        self.experiment_name = experiment_name
        self.tracking_uri = tracking_uri
        self.state_dir = Path(state_dir)
        self.artifact_location = artifact_location
        self.parent_run_id = parent_run_id
        self.env = dict(env or {})
        self.env_to_tag = tuple(env_to_tag)
        self.extra_tags = dict(extra_tags or {})
        self.ui_url = ui_url
        self.registered_model = registered_model
        self._patience = _AWAY_SECONDS

    @property
    def registry(self) -> Registry:
        """The registered models of the same MLflow."""
        os.environ.update(self.env)
        return Registry(self.tracking_uri, self.registered_model)

    def connect(self) -> tuple[MlflowClient, str]:
        """Return a client and the experiment's id; database and experiment are created if they're missing.

        Raises
        ------
        TrackingError
            Within seconds, if MLflow can't be reached or the experiment was deleted.
        """
        os.environ.update(self.env)
        return ensure_experiment(self.tracking_uri, self.experiment_name, self.artifact_location)

    def check(self) -> None:
        """Make sure that a server, or its database, answers. Nothing stays open: a process may be copied after that.

        Raises
        ------
        TrackingError
            Within seconds, if it doesn't.
        """
        os.environ.update(self.env)
        if sqlite_file(self.tracking_uri) is None:  # else it is made when it is needed
            probe(self.tracking_uri)

    def wait_for_server(self) -> bool:
        """Wait up to a minute for a server that has gone away; return whether it is back.

        If it stayed away, the next call only looks whether it is there.
        """
        until = time.monotonic() + self._patience
        while True:
            try:
                self.check()
            except TrackingServerNotFound:
                if time.monotonic() >= until:
                    self._patience = 0.0
                    return False
                time.sleep(1)
            else:
                self._patience = _AWAY_SECONDS
                return True

    @contextmanager
    def run(self, name: str, *, origin: Origin, tags: Mapping[str, str]) -> Iterator[TrackedRun]:
        """Begin a run, which ends with the context.

        It ends FINISHED; FAILED if an exception comes through; KILLED if an interruption does (Ctrl-C, SystemExit,
        Dagster's termination). A process that is killed leaves its run to :func:`reap_abandoned_runs`.

        Raises
        ------
        TrackingError
            Within seconds, before anything is begun, if MLflow can't be reached.
        """
        client, experiment_id = self.connect()
        if self.parent_run_id is not None:
            with tracking_errors(f"finding parent_run_id={self.parent_run_id!r}", self.tracking_uri):
                client.get_run(self.parent_run_id)
        reap_abandoned_runs(self.state_dir, self.tracking_uri)
        if origin.attempt > 1 or origin.resumes:
            self._end_earlier_attempts(client, experiment_id, name, origin, tags)
        # The lock is held before the run exists, and finds it by this tag: there's no moment at which a kill is missed.
        token = uuid.uuid4().hex
        note = open_runs.Note(self.tracking_uri, self.experiment_name, f"tags.process_token = '{token}'")
        with open_runs.hold(self.state_dir, note) as opened:
            run_tags = {**self._tags(origin, tags), "process_token": token}
            with tracking_errors("beginning a run", self.tracking_uri):
                run_id = client.create_run(experiment_id, run_name=name, tags=run_tags).info.run_id
                open_runs.remove_twins(client, experiment_id, note.filter, keep=run_id)
            run = TrackedRun(client, run_id, experiment_id, self.url(experiment_id, run_id), self._child_tags(run_tags))
            with self._ending(run, name, opened, twins=f"{note.filter} and attributes.run_name = '{name}'"):
                yield run

    def _end_earlier_attempts(
        self, client: MlflowClient, experiment_id: str, name: str, origin: Origin, tags: Mapping[str, str]
    ) -> None:
        """Let attempts that the orchestrator has given up count as such, whatever became of them afterwards."""
        same = {**tags, "orchestrator": origin.orchestrator}
        earlier = f"attributes.run_name = '{name}' and tags.{self.run_id_tag} = "
        with tracking_errors("ending the runs of earlier attempts", self.tracking_uri):
            ids = (origin.run_id, *origin.resumes)
            for run in [run for one in ids for run in client.search_runs([experiment_id], f"{earlier}'{one}'")]:
                is_same = all(run.data.tags.get(tag) == same.get(tag) for tag in ("orchestrator", "pipeline", "symbol"))
                if is_same and run.info.status in ("RUNNING", "FINISHED"):
                    status: Status = "KILLED" if run.info.status == "RUNNING" else "FAILED"
                    open_runs.set_status(client, run.info.run_id, status, end_time=run.info.end_time)

    @contextmanager
    def _ending(self, run: TrackedRun, name: str, opened: open_runs.OpenRun, twins: str) -> Iterator[None]:
        def end(status: Status) -> None:
            self._end(run, name, status)
            # What a server was slow to make is there only now.
            with tracking_errors(f"looking for twins of run {run.run_id}", self.tracking_uri):
                open_runs.remove_twins(reach(self.tracking_uri), run.experiment_id, twins, keep=run.run_id)
            opened.ended = True

        try:
            yield
        except BaseException as error:
            try:
                end(status_of(error))
            except TrackingError as besides:
                # What went wrong first is what the caller has to see; the reaper will end the run.
                logger.warning("%s", besides)
            raise
        end("FINISHED")

    def _end(self, run: TrackedRun, name: str, status: Status) -> None:
        client = reach(self.tracking_uri)
        with tracking_errors(f"ending run {name!r} ({run.run_id}, {status})", self.tracking_uri):
            # An operator, or a sensor, may have given the verdict already ("mark as canceled"): it stands.
            if client.get_run(run.run_id).info.status == "RUNNING":
                open_runs.set_status(client, run.run_id, status)

    def settle(self, orchestrator_run_id: str, status: Status) -> list[str]:
        """Set the status of an orchestrator's run that has ended for the MLflow runs that have it wrong.

        Returns
        -------
        list of str
            The ids of the MLflow runs that were changed.

        Raises
        ------
        TrackingError
            If MLflow can't be reached. A note is left, so that a later :func:`reap_abandoned_runs` does it.
        """
        os.environ.update(self.env)
        wrong_ones = f"tags.{self.run_id_tag} = '{orchestrator_run_id}'"
        note = open_runs.Note(self.tracking_uri, self.experiment_name, wrong_ones, status, verdict=True)
        try:
            return open_runs.end_runs(note)
        except TrackingError:
            open_runs.leave(self.state_dir, note)
            raise

    def reap(self) -> list[str]:
        """End the runs that dead processes of this machine left RUNNING, in whatever MLflow; return their ids."""
        os.environ.update(self.env)
        return reap_abandoned_runs(self.state_dir)

    def url(self, experiment_id: str, run_id: str) -> str | None:
        """Return where people look at a run: at the server itself, else at `ui_url`."""
        path = f"experiments/{experiment_id}/runs/{run_id}"
        return self._page(path, f"ml/{path}")

    def version_url(self, symbol: str, version: str) -> str | None:
        """Return where people look at a version of a symbol's registered model."""
        name = self.registry.name_of(symbol)
        in_catalog = f"explore/data/models/{name.replace('.', '/')}/version/{version}"
        return self._page(f"models/{quote(name)}/versions/{version}", in_catalog)

    def _page(self, of_mlflow: str, of_databricks: str) -> str | None:
        base = self.tracking_uri if self.tracking_uri.startswith(("http://", "https://")) else self.ui_url
        if base is None:
            return None
        base = safe_uri(base)
        if self.tracking_uri.startswith("databricks"):
            return f"{base.rstrip('/')}/{of_databricks}"
        return f"{base.rstrip('/')}/#/{of_mlflow}?{MODEL_TRAINING}"

    def _tags(self, origin: Origin, tags: Mapping[str, str]) -> dict[str, str]:
        link = {}
        if origin.url is not None:
            note = f"[{origin.orchestrator} run {origin.run_id}]({origin.url})"
            link = {"orchestrator_url": origin.url, "mlflow.note.content": note}
        every = {
            # MLflow's columns "User" and "Source", which only its global API fills by itself.
            "mlflow.user": _user(),
            "mlflow.source.name": origin.orchestrator,
            "mlflow.source.type": "JOB",
            **({} if self.parent_run_id is None else {"mlflow.parentRunId": self.parent_run_id}),
            **{name: os.environ[name] for name in self.env_to_tag if name in os.environ},
            **self.extra_tags,
            **tags,
            "orchestrator": origin.orchestrator,
            "orchestrator_run_id": origin.run_id,
            **({} if origin.attempt == 1 else {"orchestrator_attempt": str(origin.attempt)}),
            **link,
        }
        return {name: printable(redacted(value)) for name, value in every.items()}

    @staticmethod
    def _child_tags(tags: Mapping[str, str]) -> dict[str, str]:
        """Return what of a run's tags its children have too: all but those by which it is found as a run of its own."""
        return {key: value for key, value in tags.items() if not key.startswith(("orchestrator", "mlflow.note"))}


def artifact_url(page: str, run_id: str, path: str) -> str | None:
    """Return where MLflow's own pages show a file of a run; None on Databricks, where that takes a token.

    Parameters
    ----------
    page : str
        Any page of that MLflow, as `MlflowTracker.url` returned it.
    path : str
        Of the artifact: ``plots/forecast.png``.
    """
    base, own, _ = page.partition("/#/")
    return f"{base}/get-artifact?path={quote(path)}&run_uuid={run_id}" if own else None


def status_of(error: BaseException) -> Status:
    """Return how a run ends that an exception comes through: interruptions aren't failures."""
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user may have no name
        return "unknown"
