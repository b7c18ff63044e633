"""How a deployment travels to the cluster: as environment variables that make `load_deployment` give the same stack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.secrets import is_reference, is_secret_name, looks_secret

if TYPE_CHECKING:
    from mlops_dagster.stack.deployment import Deployment

HOME = "/tmp/mlops_dagster"  # noqa: S108 - on the cluster's own disk, which is gone with the cluster
_FREE_FORM = frozenset({"storage_options", "env", "extra_tags", "conf", "environment"})
# Without these the cluster would work with another store, tracking or source than the deployment's.
_NEEDED = re.compile(r"store\.root|tracking\.mlflow_tracking_uri|prices\.path|data\..*")


class TravelError(MlopsError):
    """The deployment can't be sent to a cluster without sending a secret; the message says which, and the cure."""

    exit_status = 2


def remote_environment(deployment: Deployment) -> dict[str, str]:
    """Return the environment variables that make this stack on the cluster.

    Parameters
    ----------
    deployment : Deployment
        The settings as they are in force here, whatever file or variable they come from.

    Returns
    -------
    dict of str to str
        No secret is among them, see :func:`left_behind`.

    Raises
    ------
    TravelError
        If the place of the store, of the tracking or of data holds a secret, and no secret of the workspace
        stands in for it.
    """
    sent = _settings(deployment)
    for path in list(_secrets_in(sent)):
        variable = "MLOPS_" + path.upper().replace(".", "__")
        if _NEEDED.fullmatch(path) and variable not in _provided(deployment):
            raise TravelError(
                f"{path} holds a secret, and secrets aren't sent to a cluster. Store the whole value as a secret of "
                f"the workspace and name it in databricks.secrets: {{name: {variable}, scope: ..., key: ...}}."
            )
        _forget(sent, path)
    sent["spark"].setdefault("master", "active")  # one with a token in it was left out
    environment = sent.pop("environment")
    return {
        **environment,
        "MLOPS_DEPLOYMENT": "local",
        "MLOPS_INSIDE": "true",
        "MLOPS_COMPUTE": deployment.compute,
        "MLOPS_HOME": HOME,
        **{
            f"MLOPS_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in sent.items()
        },
    }


def left_behind(deployment: Deployment) -> list[str]:
    """Name the settings that aren't sent because they hold a secret, for the run's log.

    Those that `databricks.secrets` provides under the variable's own name aren't among them.
    """
    return [
        path
        for path in _secrets_in(_settings(deployment))
        if "MLOPS_" + path.upper().replace(".", "__") not in _provided(deployment)
        and path.rpartition(".")[2] not in _provided(deployment)
    ]


def _settings(deployment: Deployment) -> dict[str, Any]:
    """Return what is sent, secrets included."""
    whole = ("store", "tracking", "prices", "data", "limits", "spark", "symbols", "dagster_url")
    sent: dict[str, Any] = deployment.model_dump(
        mode="json", include={**dict.fromkeys(whole, True), "schedules": {"exchange"}}, exclude_none=True
    )
    if "master" not in deployment.spark.model_fields_set:
        del sent["spark"]["master"]
    if not deployment.data:
        del sent["data"]
    return {**sent, "environment": dict(deployment.databricks.environment) if deployment.databricks else {}}


def _provided(deployment: Deployment) -> set[str]:
    return {secret.name for secret in deployment.databricks.secrets} if deployment.databricks else set()


def _secrets_in(settings: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the dotted path of each setting that is a secret by its name or by how it looks."""
    for name, value in settings.items():
        at = f"{path}.{name}" if path else name
        free = path.rpartition(".")[2] in _FREE_FORM
        if isinstance(value, Mapping):
            yield from _secrets_in(value, at)
        elif path == "environment" and is_reference(str(value)):
            continue  # Databricks puts the secret in its place
        elif (free and is_secret_name(name)) or looks_secret(str(value)):
            yield at


def _forget(settings: dict[str, Any], path: str) -> None:
    # A free-form name may have dots in it (spark.hadoop.fs.s3a.secret.key), the settings' own names have none.
    first, _, rest = path.partition(".")
    if path in settings:
        del settings[path]
    else:
        _forget(settings[first], rest)
