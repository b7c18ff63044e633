"""MLflow's model registry: versions and aliases of each symbol's model, and loading a version that can be trusted.

What belongs here: one registered model per symbol, and what is looked at before a file is opened. What doesn't: which
version deserves which alias (`steps/promotion.py`).

A model file is code as soon as it is a pickle, and MLflow loads whatever module a model names. So a version is opened
only if it is what this project registers: a forest in the skops format, of types that we trust, whose bytes have the
digest that was written down when it was trained.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.pipelines import MlopsError, check_symbol
from mlops_dagster.stack.mlflow_connection import explained, reach
from mlops_dagster.stack.tracked_run import FOREST_TYPES

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlops_dagster.stack.tracked_run import LoggedModel

CHALLENGER = "challenger"
CHAMPION = "champion"
_FILE = "model.skops"


class ModelRefused(MlopsError):  # noqa: N818 it reads better where it is caught
    """A registered model is gone, damaged, or not what this project would have registered; the message says which."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a symbol's model.

    Attributes
    ----------
    symbol, version : str
        Which; versions are counted from "1".
    model_digest : str
        Says which forest it is, see :func:`mlops_dagster.ml.model.model_digest`.
    file_sha256 : str
        Of its file.
    tags : dict of str to str
        What was written down about its training.
    uri : str
        ``models:/<name>/<version>``.
    """

    symbol: str
    version: str
    model_digest: str
    file_sha256: str
    tags: dict[str, str]
    uri: str


class Registry:
    """The registered models of one MLflow, one per symbol.

    Parameters
    ----------
    tracking_uri : str
        The MLflow.
    name : str
        The registered models' name, with ``{symbol}`` in it.
    """

    def __init__(self, tracking_uri: str, name: str = "mlops_dagster.{symbol}") -> None:
        self.tracking_uri = tracking_uri
        self.name = name

    def name_of(self, symbol: str) -> str:
        """Return the name of a symbol's registered model."""
        text = check_symbol(symbol)
        if self.tracking_uri.startswith("databricks"):
            # Unity Catalog takes letters, digits, - and _; the underscores on both sides keep names apart.
            text = re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):x}_", text)
        return self.name.replace("{symbol}", text)

    def register(self, symbol: str, model: LoggedModel, run_id: str, tags: Mapping[str, str]) -> str:
        """Make a version of a logged model, and the challenger of it; return its number.

        Parameters
        ----------
        symbol : str
            Whose model.
        model : LoggedModel
            What a run has logged.
        run_id : str
            The run.
        tags : mapping of str to str
            ``model_digest`` and ``model_file_sha256`` at least.
        """
        from mlflow.exceptions import MlflowException

        name = self.name_of(symbol)
        # A database's client would look a models:/ address up in the process's global MLflow.
        is_server = self.tracking_uri.startswith(("http", "databricks"))
        source = model.uri if is_server else model.artifact_location
        with explained(f"registering a version of {name}", self.tracking_uri):
            client = self._client()
            try:
                client.create_registered_model(name, tags={"symbol": symbol})
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = client.create_model_version(name, source, run_id, tags=dict(tags), model_id=model.model_id)
            version = str(made.version)
            client.set_registered_model_alias(name, CHALLENGER, version)
        return version

    def get(self, symbol: str, version: str) -> RegisteredVersion:
        """Return a version.

        Raises
        ------
        ModelRefused
            If there is no such version, or it wasn't registered by this project.
        TrackingError
            If MLflow can't be reached.
        """
        name = self.name_of(symbol)
        found = self._or_none(lambda client: client.get_model_version(name, version))
        if found is None:
            raise ModelRefused(f"{name} has no version {version}: it was deleted, or never registered here.")
        missing = {"model_digest", "model_file_sha256"} - set(found.tags)
        if missing:
            raise ModelRefused(
                f"{name} version {version} has no {', '.join(sorted(missing))}: a step didn't register it."
            )
        tags = dict(found.tags)
        return RegisteredVersion(
            symbol, str(version), tags["model_digest"], tags["model_file_sha256"], tags, f"models:/{name}/{version}"
        )

    def holder(self, symbol: str, alias: str) -> str | None:
        """Return the version that has an alias, or None."""
        name = self.name_of(symbol)
        found = self._or_none(lambda client: client.get_model_version_by_alias(name, alias))
        return None if found is None else str(found.version)

    def set_alias(self, symbol: str, alias: str, version: str) -> None:
        """Give an alias to a version; whichever had it loses it."""
        name = self.name_of(symbol)
        with explained(f"making version {version} of {name} the {alias}", self.tracking_uri):
            self._client().set_registered_model_alias(name, alias, version)

    def load(self, symbol: str, version: str) -> tuple[Any, RegisteredVersion]:
        """Fetch a version, make sure that it is what was registered, and only then open it.

        Returns
        -------
        estimator, RegisteredVersion
            The fitted forest.

        Raises
        ------
        ModelRefused
            If its files are gone or damaged, name another loader or format, lie outside of their folder, hold types
            that aren't trusted, or are another model than the one that was registered.
        TrackingError
            If MLflow can't be reached.
        """
        import mlflow.artifacts

        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        found = self.get(symbol, version)
        with explained(f"finding the files of {found.uri}", self.tracking_uri):
            # The address models:/ itself would be looked up in the process's global registry.
            where = self._client().get_model_version_download_uri(self.name_of(symbol), version)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                folder = mlflow.artifacts.download_artifacts(
                    artifact_uri=where, dst_path=scratch, tracking_uri=self.tracking_uri
                )
            except Exception as error:  # noqa: BLE001 - any of a dozen libraries
                raise ModelRefused(f"{found.uri}: its files can't be fetched ({_short(error)}).") from None
            return _open(Path(folder), found), found

    def _client(self) -> MlflowClient:
        return reach(self.tracking_uri)

    def _or_none(self, ask: Any) -> Any:
        from mlflow.exceptions import MlflowException

        with explained("reading the model registry", self.tracking_uri):
            try:
                return ask(self._client())
            except MlflowException as error:
                # An alias that nobody has is an invalid parameter, a version that isn't there doesn't exist.
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise


def _open(folder: Path, expected: RegisteredVersion) -> Any:
    import skops.io
    import yaml

    from mlops_dagster.ml.model import model_digest

    def refuse(why: str) -> ModelRefused:
        return ModelRefused(f"{expected.uri} isn't loaded: {why}. Train again, or roll back.")

    try:
        described = yaml.safe_load((folder / "MLmodel").read_text())
        flavors = described["flavors"]
        loader, path = flavors["python_function"]["loader_module"], flavors["python_function"]["model_path"]
        how, other = flavors["sklearn"]["serialization_format"], flavors["sklearn"]["pickled_model"]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise refuse(f"its MLmodel file can't be understood ({_short(error)})") from None
    if loader != "mlflow.sklearn":
        raise refuse(f"it names the loader {loader!r}, which could run anything")
    if how != "skops":
        raise refuse(f"its format is {how!r}, which can run code when it is loaded; skops can't")
    if {path, other} != {_FILE}:
        raise refuse(f"it names the file {path!r} instead of {_FILE!r}")
    file = folder / _FILE
    if file.is_symlink() or not file.is_file():
        raise refuse(f"there is no file {_FILE}")
    if (found := hashlib.sha256(file.read_bytes()).hexdigest()) != expected.file_sha256:
        raise refuse(f"its file's SHA-256 is {found[:12]}..., registered was {expected.file_sha256[:12]}...")
    try:
        strange = set(skops.io.get_untrusted_types(file=file)) - set(FOREST_TYPES)
        if strange:
            raise refuse(f"it holds types that aren't trusted: {', '.join(sorted(strange))}")
        model = skops.io.load(file, trusted=list(FOREST_TYPES))
    except MlopsError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything
        raise refuse(f"its file can't be read ({_short(error)})") from None
    if model_digest(model) != expected.model_digest:
        raise refuse("the forest in it is another one than was registered")
    return model


def _short(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text if len(text) <= 200 else f"{text[:200]}..."
