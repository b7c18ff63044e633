"""MLflow's model registry: versions and aliases of each symbol's model, and loading a version that can be trusted."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.stack.mlflow_connection import reach, safe_uri, tracking_errors
from mlops_dagster.stack.model_files import DESCRIPTION, FILE, ModelRefused, open_model, short

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from mlops_dagster.stack.tracked_run import LoggedModel

__all__ = ["CHALLENGER", "CHAMPION", "ModelRefused", "RegisteredVersion", "Registry", "VersionKey"]

CHALLENGER = "challenger"
CHAMPION = "champion"


class VersionKey(NamedTuple):
    """Who a version is: its number, and the digest of its model.

    A number alone names nobody: it is given anew where a registered model was deleted, and by another MLflow.
    """

    version: str
    model_digest: str


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a symbol's model.

    Attributes
    ----------
    symbol, version : str
        Which; versions are counted from "1".
    model_digest : str
        Says which model it is, see :func:`mlops_dagster.modeling.digest.model_digest`.
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
    run_id: str

    @property
    def key(self) -> VersionKey:
        """Who it is."""
        return VersionKey(self.version, self.model_digest)


class Registry:
    """The registered models of one MLflow, one per symbol.

    Parameters
    ----------
    name : str
        The registered models' name, with ``{symbol}`` in it.
    """

    def __init__(self, tracking_uri: str, name: str = "mlops_dagster.{symbol}") -> None:
        self.tracking_uri = tracking_uri
        self.name = name

    def name_of(self, symbol: str) -> str:
        """Return the name of a symbol's registered model."""
        text = check_partition(symbol)
        if self.tracking_uri.startswith("databricks"):
            # Unity Catalog takes letters, digits, - and _, and keeps names in lower case: GSPC and gspc would be one
            # model. The underscores on both sides keep names apart.
            text = re.sub(r"[^A-Z0-9-]", lambda found: f"_{ord(found[0]):x}_", text)
        return self.name.replace("{symbol}", text)

    def register(self, symbol: str, model: LoggedModel, run_id: str, tags: Mapping[str, str], card: str = "") -> str:
        """Make a version of a logged model, and the challenger of it; return its number.

        Parameters
        ----------
        tags : mapping of str to str
            ``model_digest`` and ``model_file_sha256`` at least.
        card : str
            What there is to know about the model, for people, in Markdown.
        """
        from mlflow.exceptions import MlflowException

        name = self.name_of(symbol)
        # A database's client would look a models:/ address up in the process's global MLflow.
        is_server = self.tracking_uri.startswith(("http", "databricks"))
        source = model.uri if is_server else model.artifact_location
        all_tags = {**tags, "trusted_types": ", ".join(model.trusted)} if model.trusted else dict(tags)
        with tracking_errors(f"registering a version of {name}", self.tracking_uri):
            client = self._client()
            try:
                about = f"Models of {symbol}. The alias `{CHAMPION}` has the one that forecasts are made with."
                client.create_registered_model(name, tags={"symbol": symbol}, description=about)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = client.create_model_version(
                name, source, run_id, tags=all_tags, description=card, model_id=model.model_id
            )
            version = str(made.version)
            if is_server:
                version = self._without_twins(client, made)
            client.set_registered_model_alias(name, CHALLENGER, version)
        return version

    @staticmethod
    def _without_twins(client: MlflowClient, made: ModelVersion) -> str:
        """Return the one version of a logged model: an answer that was lost lets MLflow's client ask for another."""
        found = client.search_model_versions(f"run_id = '{made.run_id}'")
        same = {str(one.version) for one in found if (one.name, one.source) == (made.name, made.source)}
        first, *twins = sorted(same | {str(made.version)}, key=int)
        for twin in twins:
            client.delete_model_version(made.name, twin)
        return first

    def get(self, symbol: str, version: str, model_digest: str | None = None) -> RegisteredVersion:
        """Return a version.

        Parameters
        ----------
        model_digest : str, optional
            Of the model that is meant, from whoever remembers the version.

        Raises
        ------
        ModelRefused
            If there is no such version, it is another model than the one that is meant, or it wasn't registered by
            this project.
        TrackingError
            If MLflow can't be reached.
        """
        name = self.name_of(symbol)
        found = self._or_none(lambda client: client.get_model_version(name, version))
        if found is None:
            raise ModelRefused(
                f"{name} has no version {version} at {safe_uri(self.tracking_uri)}: it was deleted, or registered in "
                "another MLflow."
            )
        missing = {"model_digest", "model_file_sha256"} - set(found.tags)
        if missing:
            raise ModelRefused(
                f"{name} version {version} has no {', '.join(sorted(missing))}: a step didn't register it."
            )
        tags = dict(found.tags)
        if model_digest is not None and model_digest != tags["model_digest"]:
            raise ModelRefused(
                f"{name} version {version} at {safe_uri(self.tracking_uri)} is another model (digest "
                f"{tags['model_digest'][:12]}) than the one that had this number before ({model_digest[:12]}): that "
                "one was deleted, or is in another MLflow."
            )
        uri = f"models:/{name}/{version}"
        return RegisteredVersion(
            symbol, str(version), tags["model_digest"], tags["model_file_sha256"], tags, uri, str(found.run_id)
        )

    def holder(self, symbol: str, alias: str) -> VersionKey | None:
        """Return who has an alias, or None."""
        name = self.name_of(symbol)
        found = self._or_none(lambda client: client.get_model_version_by_alias(name, alias))
        return None if found is None else VersionKey(str(found.version), str(found.tags.get("model_digest")))

    def set_alias(self, symbol: str, alias: str, version: str | None) -> None:
        """Give an alias to a version, or with None to nobody; whichever had it loses it."""
        name = self.name_of(symbol)
        with tracking_errors(f"making version {version} of {name} the {alias}", self.tracking_uri):
            if version is None:
                self._client().delete_registered_model_alias(name, alias)
            else:
                self._client().set_registered_model_alias(name, alias, version)

    def load(
        self, symbol: str, version: str, model_digest: str | None = None, *, trusted: Sequence[str] = ()
    ) -> tuple[Any, RegisteredVersion]:
        """Fetch a version, make sure that it is what was registered, and only then open it.

        Parameters
        ----------
        symbol, version, model_digest : str
            As for :meth:`get`.
        trusted : sequence of str
            Types that it may hold beside scikit-learn's own, from its declaration. What the registry says was trusted
            doesn't count: whoever forges a model could write that, too.

        Returns
        -------
        estimator, RegisteredVersion
            The fitted model.

        Raises
        ------
        ModelRefused
            If its files are gone or damaged, name another loader or format, lie outside of their folder, hold types
            that aren't trusted, or are another model than the one that was registered.
        TrackingError
            If MLflow can't be reached.
        """
        from mlflow.utils.file_utils import local_file_uri_to_path
        from mlflow.utils.uri import is_local_uri

        found = self.get(symbol, version, model_digest)
        with tracking_errors(f"finding the files of {found.uri}", self.tracking_uri):
            # The address models:/ itself would be looked up in the process's global registry.
            where = self._client().get_model_version_download_uri(self.name_of(symbol), version)
        if is_local_uri(where, is_tracking_or_registry_uri=False):  # type: ignore[no-untyped-call]
            # Whoever can write to the registry could name any folder of this machine.
            own = self._or_none(partial(_logged_by, run_id=found.run_id)) or []
            if where not in own:
                raise ModelRefused(
                    f"{found.uri} isn't loaded: it says that its files are in {where}, but its run {found.run_id} "
                    f"wrote them to {', '.join(own) or 'nowhere'}."
                )
            folder = Path(local_file_uri_to_path(where))  # type: ignore[no-untyped-call]
            return open_model(folder, found.uri, found.file_sha256, found.model_digest, trusted), found
        with tempfile.TemporaryDirectory() as scratch:
            folder = self._fetch(where, Path(scratch), found)
            return open_model(folder, found.uri, found.file_sha256, found.model_digest, trusted), found

    def _fetch(self, where: str, scratch: Path, found: RegisteredVersion) -> Path:
        """Fetch the two files that a version has to have, and no others."""
        import mlflow.artifacts

        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        for name in (DESCRIPTION, FILE):
            try:
                mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{where.rstrip('/')}/{name}", dst_path=str(scratch), tracking_uri=self.tracking_uri
                )
            except Exception as error:  # noqa: BLE001 - any of a dozen libraries
                raise ModelRefused(f"{found.uri}: its file {name} can't be fetched ({short(error)}).") from None
        return scratch

    def add_pictures(self, of: RegisteredVersion, folder: str, pngs: Mapping[str, bytes]) -> None:
        """Keep pictures that speak of a version with the run that trained it, as ``<folder>/<name>.png``.

        Raises
        ------
        TrackingError
            If MLflow can't be reached, or the run is gone.
        """
        with (
            tempfile.TemporaryDirectory() as scratch,
            tracking_errors(f"adding pictures to {of.uri}", self.tracking_uri),
        ):
            for name, png in pngs.items():
                Path(scratch, f"{name}.png").write_bytes(png)
            self._client().log_artifacts(of.run_id, scratch, folder)

    def _client(self) -> MlflowClient:
        return reach(self.tracking_uri)

    def _or_none(self, ask: Any) -> Any:
        from mlflow.exceptions import MlflowException

        with tracking_errors("reading the model registry", self.tracking_uri):
            try:
                return ask(self._client())
            except MlflowException as error:
                # An alias that nobody has is an invalid parameter, a version that isn't there doesn't exist.
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise


def _logged_by(client: MlflowClient, run_id: str) -> list[str]:
    """Return where a run has put the models that it logged."""
    outputs = client.get_run(run_id).outputs
    models = [] if outputs is None else outputs.model_outputs
    return [str(client.get_logged_model(one.model_id).artifact_location) for one in models]
