"""The MLflow runs that are open on this machine, and what to do about those whose process has died.

MLflow never notices that the process of a run is gone: killed with -9, it stays RUNNING for good. So a process holds
an operating system's lock while its run is open, which even kill -9 releases, beside a note that says which run it
is. Whoever can take the lock knows that the owner is dead; no process id, heartbeat or clock is involved.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from mlops_dagster.stack.files import said_by_the_disk, write_whole
from mlops_dagster.stack.mlflow_connection import TrackingError, reach, safe_uri, sqlite_file, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]
# Of the files that hold a note; each has a lock beside it.
NOTE = ".run"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Note:
    """Which runs are meant, and how they end if nobody else ends them.

    Parameters
    ----------
    filter : str
        Finds them, as ``MlflowClient.search_runs`` takes it.
    status : {"FINISHED", "FAILED", "KILLED"}
        How they end.
    verdict : bool
        Whether `status` is what the orchestrator says about a run that has ended, and not only what is left to say
        when an owner has died.
    """

    tracking_uri: str
    experiment_name: str
    filter: str
    status: Status = "FAILED"
    verdict: bool = False


@dataclass
class OpenRun:
    """The hold on a run's note; `ended` says that the run has its final status in MLflow."""

    ended: bool = False


@contextmanager
def hold(state_dir: Path, note: Note) -> Iterator[OpenRun]:
    """Keep a note for as long as this process lives, or until the run has ended.

    A run that hasn't when this returns (because MLflow couldn't be reached any more) is left to
    :func:`reap_abandoned_runs`.
    """
    path = _leave(state_dir, note, lock=(lock := _new_lock(state_dir)))
    opened = OpenRun()
    try:
        yield opened
    finally:
        if opened.ended:
            path.unlink(missing_ok=True)
        lock.release()
        if opened.ended:
            path.with_suffix(".lock").unlink(missing_ok=True)


def leave(state_dir: Path, note: Note) -> None:
    """Leave a note for :func:`reap_abandoned_runs`, for when MLflow can't be reached now."""
    _leave(state_dir, note, lock=(lock := _new_lock(state_dir)))
    lock.release()


def _new_lock(state_dir: Path) -> FileLock:
    state_dir.mkdir(parents=True, exist_ok=True)
    return FileLock(state_dir / f"{uuid.uuid4().hex}.lock")


def _leave(state_dir: Path, note: Note, *, lock: FileLock) -> Path:
    # The lock comes first: a note that nobody holds is a dead owner's.
    path = Path(lock.lock_file).with_suffix(NOTE)
    try:
        lock.acquire()
        write_whole(path, json.dumps(asdict(note)), mode=0o600)  # a database's URI may hold a password
    except OSError as error:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        raise TrackingError(f"the note of an open run can't be written: {said_by_the_disk(error) or error}") from error
    return path


def reap_abandoned_runs(state_dir: Path, tracking_uri: str | None = None) -> list[str]:
    """End every run that a dead process left RUNNING.

    Costs a directory listing when there is nothing to do; MLflow is imported only if there is.

    Parameters
    ----------
    state_dir : Path
        Where the trackers of this machine keep their notes.
    tracking_uri : str, optional
        Look at this MLflow only. Not given: at all of them.

    Returns
    -------
    list of str
        The ids of the runs whose status was set.
    """
    ended: list[str] = []
    unreachable: set[str] = set()
    for path in sorted(state_dir.glob(f"*{NOTE}")):
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue  # its owner lives
        try:
            note = Note(**json.loads(path.read_text(encoding="utf-8")))
            if note.tracking_uri in unreachable or tracking_uri not in (None, note.tracking_uri):
                continue
            ended += end_runs(note)
        except FileNotFoundError:
            pass  # the owner, or another reaper, has just cleared it away
        except (ValueError, TypeError):
            logger.warning("%s is not a note of an open run (killed while writing it?); it is removed", path)
        except TrackingError as error:
            unreachable.add(note.tracking_uri)
            logger.warning("runs at %s can't be ended now: %s", safe_uri(note.tracking_uri), error)
            continue
        finally:
            lock.release()
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
    return ended


def end_runs(note: Note) -> list[str]:
    """Set the status of the runs that a note is about, where it's wrong; return their ids."""
    file = sqlite_file(note.tracking_uri)
    if file is not None and not file.exists():
        return []  # nothing was tracked yet, or everything was thrown away
    client = reach(note.tracking_uri)
    changed = []
    with tracking_errors("ending runs", note.tracking_uri):
        experiment = client.get_experiment_by_name(note.experiment_name)
        if experiment is None:
            return []
        for run in client.search_runs([experiment.experiment_id], filter_string=note.filter):
            # dagster-mlflow (and only it) keeps one MLflow run per Dagster run, so their statuses are the same.
            right = _right_status(run.info.status, note, whole="dagster_run_id" in run.data.tags)
            if right != run.info.status:
                set_status(client, run.info.run_id, right, end_time=run.info.end_time)
                changed.append(str(run.info.run_id))
    return changed


def remove_twins(client: MlflowClient, experiment_id: str, filter_string: str, keep: str | None = None) -> None:
    """Remove the runs beside one that are there because an answer was lost.

    MLflow did what it was asked, the answer didn't come, and its client asked again: the first run is nobody's, and
    would stay RUNNING for good.

    Parameters
    ----------
    filter_string : str
        Finds the run and its twins, by a tag that no other run has.
    keep : str, optional
        The run that is somebody's; None if all that are found are nobody's.
    """
    if not client.tracking_uri.startswith(("http", "databricks")):
        return  # nobody is between a database and its client
    for run in client.search_runs([experiment_id], filter_string):
        if run.info.run_id != keep:
            set_status(client, run.info.run_id, "KILLED")
            client.delete_run(run.info.run_id)


def _right_status(now: str, note: Note, *, whole: bool) -> str:
    if now in ("RUNNING", "SCHEDULED"):
        return note.status
    # A run of ours is one training: it may well have finished in a Dagster run that failed later.
    if note.verdict and (whole or (now, note.status) == ("FAILED", "KILLED")):
        return note.status
    return now


def set_status(client: MlflowClient, run_id: str, status: str, end_time: int | None = None) -> None:
    """End a run. MLflow prints the run's address; it goes to stderr, since stdout may be JSON for a script."""
    with contextlib.redirect_stdout(sys.stderr):
        client.set_terminated(run_id, status, end_time=end_time)
