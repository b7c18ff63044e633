"""How to reach MLflow: a client of its own for every tracker, and an experiment that surely exists."""

from __future__ import annotations

import re
import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.files import said_by_the_disk
from mlops_dagster.stack.secrets import as_cause, redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Creating the schema takes 2 to 5 seconds; whoever waits longer than this waits for a process that hangs.
SCHEMA_LOCK_SECONDS = 120
_EXPERIMENT_KIND = "mlflow.experimentKind"
_EXPERIMENT_TAGS = {
    # Else MLflow shows what it has for language models, and no registry.
    _EXPERIMENT_KIND: "custom_model_development",
    "mlflow.note.content": (
        "Trainings and searches of mlops_dagster.\n\n"
        "- A **training** is a run per model: parameters, metrics on the test rows, plots, the training set it learned "
        "from, and the model, which is registered as the newest version of its symbol.\n"
        "- A **search** is a run with its candidates below it, named by their parameters.\n\n"
        "In the model registry the alias `champion` says which version forecasts are made with."
    ),
}
# Only for the question "is anybody there?"; real requests keep MLflow's own, patient settings.
PROBE = {"timeout": 5, "max_retries": 1, "backoff_factor": 1}


_opened: dict[str, int | None] = {}
"""By their address the SQLite files that this process could open: they aren't tried again before each request."""


class TrackingError(MlopsError):
    """MLflow can't be reached or refuses; the message names the URI and the cure."""


class TrackingServerNotFound(TrackingError):  # noqa: N818 it reads better where it is caught
    """The MLflow server, or a proxy before it, isn't there just now."""


def safe_uri(uri: str) -> str:
    """Return a URI without its password, for messages, links and logs.

    Examples
    --------
    >>> safe_uri("https://me:secret@mlflow.example.com/base")
    'https://mlflow.example.com/base'
    """
    return redacted(uri).replace("://***@", "://")


def sqlite_file(uri: str) -> Path | None:
    """Return the database file of an SQLite URI, None for any other URI.

    Examples
    --------
    >>> sqlite_file("sqlite:////srv/mlflow.db")
    PosixPath('/srv/mlflow.db')
    """
    scheme, separator, path = uri.partition(":///")
    return Path(path.partition("?")[0]) if separator and scheme.partition("+")[0] == "sqlite" else None


@contextmanager
def tracking_errors(doing: str, tracking_uri: str) -> Iterator[None]:
    """Turn what MLflow raises into a :class:`TrackingError` that says what was being done, and where."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise TrackingError(
            f"{doing} failed at mlflow_tracking_uri={safe_uri(tracking_uri)!r}: {redacted(str(error))}"
        ) from None
    except OSError as error:
        said = said_by_the_disk(error) or f"{error}. Make sure that the folder can be written to and has space left."
        raise TrackingError(f"{doing} failed at mlflow_tracking_uri={safe_uri(tracking_uri)!r}: {said}") from error


def reach(tracking_uri: str) -> MlflowClient:
    """Return a client, after making sure within seconds that its server answers, see :func:`probe`."""
    probe(tracking_uri)
    from mlflow import MlflowClient

    with tracking_errors("opening the tracking store", tracking_uri):
        return MlflowClient(tracking_uri)


def probe(tracking_uri: str) -> None:
    """Make sure within seconds that a server or a database answers. Nothing stays open.

    MLflow retries a server that is down for minutes, which would be spent before, or lost after, a training.

    Raises
    ------
    TrackingError
        If nothing answers, or what answers isn't MLflow; if the URI is one that can't work.
    """
    file = sqlite_file(tracking_uri)
    if file is not None and not file.is_absolute():
        raise TrackingError(
            f"mlflow_tracking_uri={safe_uri(tracking_uri)!r}: the file is relative to wherever a process happens to "
            f"run; give the absolute path: sqlite:///{file.absolute()}."
        )
    if urlsplit(tracking_uri).scheme in ("", "file") and not tracking_uri.startswith("databricks"):
        raise TrackingError(
            f"mlflow_tracking_uri={safe_uri(tracking_uri)!r}: MLflow 3 doesn't keep runs in a folder; "
            "give a server's URL or a database: sqlite:////absolute/path/mlflow.db."
        )
    if urlsplit(tracking_uri).scheme in ("http", "https"):
        _probe_server(tracking_uri)
    elif not tracking_uri.startswith("databricks"):
        known = None if file is None or not file.exists() else file.stat().st_ino
        if known is None or _opened.get(tracking_uri) != known:
            _probe_database(tracking_uri)
            _opened[tracking_uri] = known


def _probe_server(tracking_uri: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    where = f"mlflow_tracking_uri={safe_uri(tracking_uri)!r}"
    try:
        response = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(tracking_uri),  # type: ignore[no-untyped-call]
            "/api/2.0/mlflow/experiments/get-by-name",
            "GET",
            params={"experiment_name": "Default"},
            raise_on_status=False,
            **PROBE,
        )
    except MlflowException as error:
        raise TrackingServerNotFound(
            f"{where}: no MLflow server answers. Start it (`mlflow server`, or `mlops ui`), "
            f"or correct tracking.mlflow_tracking_uri. ({redacted(str(error))})"
        ) from None
    if response.status_code in (401, 403):
        raise TrackingError(
            f"{where}: the server refuses the credentials (HTTP {response.status_code}). "
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.status_code >= 500:
        # A proxy before it says so in HTML, MLflow in plain text or JSON.
        said = " ".join(re.sub(r"<[^>]*>", " ", response.text).split())[:200] or "nothing more is said"
        raise TrackingServerNotFound(
            f"{where}: the server, or a proxy before it, answers with an error of its own (HTTP "
            f"{response.status_code}: {said}). Try again; if it stays, look into the server's log."
        )
    if not isinstance(answer, dict) or not answer.keys() & {"experiment", "error_code"}:
        raise TrackingError(
            f"{where}: something answers (HTTP {response.status_code}), but it isn't an MLflow server. "
            "Correct tracking.mlflow_tracking_uri."
        )


def _probe_database(tracking_uri: str) -> None:
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(tracking_uri, poolclass=sqlalchemy.pool.NullPool)
        sqlalchemy.inspect(engine).get_table_names()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise TrackingError(
            f"mlflow_tracking_uri={safe_uri(tracking_uri)!r}: the database can't be opened. Start it, install its "
            f"driver, or correct tracking.mlflow_tracking_uri. ({redacted(str(error))})"
        ) from as_cause(error)


def ensure_experiment(tracking_uri: str, name: str, artifact_location: str | None = None) -> tuple[MlflowClient, str]:
    """Return a client and the id of the experiment, made if it's missing; safe in many processes at once.

    Parameters
    ----------
    tracking_uri : str
        A server's URL, or a database.
    artifact_location : str, optional
        Where a new experiment keeps its artifacts. Not given: as the server says; for SQLite, beside the database.

    Raises
    ------
    TrackingError
        If MLflow can't be reached, or the experiment was deleted.
    """
    file = sqlite_file(tracking_uri)
    if file is None or not file.is_absolute():
        return _ensure_experiment(reach(tracking_uri), tracking_uri, name, artifact_location)
    artifact_location = artifact_location or (file.parent / "artifacts").as_uri()
    with tracking_errors("creating the database", tracking_uri):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{file}.lock", timeout=SCHEMA_LOCK_SECONDS):
                if not file.exists():
                    _create_sqlite(file, artifact_location)
                return _ensure_experiment(reach(tracking_uri), tracking_uri, name, artifact_location)
        except Timeout:
            raise TrackingError(
                f"mlflow_tracking_uri={safe_uri(tracking_uri)!r}: another process has been holding {file}.lock for "
                f"{SCHEMA_LOCK_SECONDS} seconds. Find it (`fuser {shlex.quote(str(file))}.lock`) and end it."
            ) from None


def _create_sqlite(file: Path, artifact_location: str) -> None:
    """Create MLflow's tables under another name first: a process killed midway leaves no half of a schema."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    fresh = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        store = SqlAlchemyStore(f"sqlite:///{fresh}", artifact_location)  # type: ignore[no-untyped-call]
        store.engine.dispose()
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def _ensure_experiment(
    client: MlflowClient, tracking_uri: str, name: str, artifact_location: str | None
) -> tuple[MlflowClient, str]:
    from mlflow.exceptions import MlflowException

    with tracking_errors(f"finding or creating the experiment {name!r}", tracking_uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return client, str(client.create_experiment(name, artifact_location, tags=_EXPERIMENT_TAGS))
            except MlflowException as error:
                # Another process was faster. Anything else is a real error.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        number = experiment.experiment_id if experiment else "?"
        raise TrackingError(
            f"experiment_name={name!r}: this experiment was deleted in MLflow ({safe_uri(tracking_uri)}). Restore it "
            f"(`mlflow experiments restore --experiment-id {number}`, with MLFLOW_TRACKING_URI set), "
            "or give another tracking.experiment_name."
        )
    if _EXPERIMENT_KIND not in experiment.tags:
        with tracking_errors(f"describing the experiment {name!r}", tracking_uri):
            for key, value in _EXPERIMENT_TAGS.items():
                if key not in experiment.tags:
                    client.set_experiment_tag(experiment.experiment_id, key, value)
    return client, str(experiment.experiment_id)
