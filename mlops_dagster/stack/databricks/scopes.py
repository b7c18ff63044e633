"""Secrets of the workspace, fetched on the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlops_dagster.errors import MlopsError


class SecretError(MlopsError):
    """A secret of the workspace can't be read; the message says which."""

    exit_status = 2


def fetch_secrets(wanted: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return secrets of the workspace by the name of the environment variable that each is to become.

    Parameters
    ----------
    wanted : iterable of mapping
        The name, the scope and the key of each.

    Raises
    ------
    SecretError
        If one can't be read, or if this isn't Databricks.
    """
    wanted = list(wanted)
    if not wanted:
        return {}
    try:
        from databricks.sdk.runtime import dbutils
    except Exception as error:  # noqa: BLE001 - without credentials the import alone fails, with the SDK's own error
        raise SecretError(f"secrets of the workspace can be read on Databricks only ({error}).") from None
    found = {}
    for secret in wanted:
        try:
            found[secret["name"]] = dbutils.secrets.get(secret["scope"], secret["key"])
        except Exception as error:  # noqa: BLE001 - py4j's, the SDK's and Databricks' own
            raise SecretError(
                f"the secret {secret['key']!r} of the scope {secret['scope']!r} can't be read ({type(error).__name__}: "
                f"{error}). Does it exist, and may the one who runs the task read it?"
            ) from None
    return found
