"""A client of the workspace, with credentials that come from the environment only.

Nothing here talks to the workspace before somebody uses the client, and nothing ever shows a credential.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError, needs

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from mlops_dagster.stack.databricks.settings import DatabricksSettings

KINDS: Mapping[str, tuple[str, ...]] = {
    "token": ("DATABRICKS_TOKEN",),
    "oauth": ("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"),
    "azure": ("ARM_CLIENT_ID", "ARM_CLIENT_SECRET", "ARM_TENANT_ID"),
}
"""The kinds of credentials, and the environment variables that make them up."""

_PARAMETERS: Mapping[str, str] = {
    "DATABRICKS_TOKEN": "token",
    "DATABRICKS_CLIENT_ID": "client_id",
    "DATABRICKS_CLIENT_SECRET": "client_secret",
    "ARM_CLIENT_ID": "azure_client_id",
    "ARM_CLIENT_SECRET": "azure_client_secret",
    "ARM_TENANT_ID": "azure_tenant_id",
}
_AUTH_TYPES: Mapping[str, str] = {"token": "pat", "oauth": "oauth-m2m", "azure": "azure-client-secret"}
RETRY_SECONDS = 60
"""How long the SDK repeats one request by itself. We ask again anyway, and deadlines have to hold."""


class WorkspaceError(MlopsError):
    """The workspace can't be reached as the deployment says; the message names what is missing and the cure."""

    exit_status = 2


@dataclass(frozen=True)
class Credentials:
    """What it takes to connect.

    Parameters
    ----------
    kind : {"token", "oauth", "azure"}
        Which kind it is.
    values : dict of str to str
        The environment variables of that kind with their values; never shown.
    """

    kind: str
    host: str
    values: dict[str, str] = field(repr=False)


def credential_state(settings: DatabricksSettings | None = None) -> dict[str, str]:
    """Say of each environment variable that may hold credentials whether it is "set" or "missing"; never its value."""
    names = [name for kind, names in KINDS.items() if not _auth(settings) or kind == _auth(settings) for name in names]
    if settings is None or not settings.host:
        names.insert(0, "DATABRICKS_HOST")
    return {name: "set" if os.environ.get(name) else "missing" for name in names}


def credential_problem(settings: DatabricksSettings | None = None) -> str | None:
    """Say what is wrong with the environment's credentials as a sentence with the cure; None if nothing is."""
    if not _host(settings):
        return (
            "no workspace is named: set databricks.host in the deployment, or the environment variable "
            "DATABRICKS_HOST, to its URL (https://....cloud.databricks.com)."
        )
    auth, there = _auth(settings), [kind for kind in KINDS if not _missing(kind)]
    if auth and _missing(auth):
        return f"databricks.auth={auth!r}, but {_and(_missing(auth))} isn't set in the environment: set it."
    if auth or len(there) == 1:
        return None
    if there:
        return (
            f"the environment has two kinds of credentials, {_and([_said(kind) for kind in there])}: unset all but "
            f"one kind, or say which one counts with databricks.auth ({' or '.join(there)})."
        )
    ways = "; ".join(f"{kind}: {_and(list(names))}" for kind, names in KINDS.items())
    half = [f"{_and(_missing(kind))} (for {kind})" for kind in KINDS if 0 < len(_missing(kind)) < len(KINDS[kind])]
    return (
        f"the environment has no credentials for the workspace {_host(settings)}: set those of one kind ({ways})."
        + (f" Only {_and(half)} is missing." if half else "")
    )


def credentials(settings: DatabricksSettings | None = None) -> Credentials:
    """Return the environment's credentials: of the kind that `settings.auth` says, or of the one kind that is there.

    Raises
    ------
    WorkspaceError
        If there is no host, no credentials, or more than one kind and nothing says which one counts.
    """
    if problem := credential_problem(settings):
        raise WorkspaceError(problem)
    kind = _auth(settings) or next(kind for kind in KINDS if not _missing(kind))
    return Credentials(kind, str(_host(settings)), {name: os.environ[name] for name in KINDS[kind]})


def connect(settings: DatabricksSettings | None = None) -> WorkspaceClient:
    """Return a client of the workspace. A token is not tried out before it is used.

    Parameters
    ----------
    settings : DatabricksSettings, optional
        Which workspace, and which credentials. Not given: as the environment says.

    Raises
    ------
    WorkspaceError
        As :func:`credentials` says, or if databricks-sdk isn't installed, or can't make a client of these credentials.
    """
    found = credentials(settings)
    try:
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.config import Config
    except ImportError as error:
        raise WorkspaceError(needs("the workspace", error)) from None
    given: dict[str, Any] = {_PARAMETERS[name]: value for name, value in found.values.items()}
    try:
        client = WorkspaceClient(
            config=Config(
                host=found.host,
                auth_type=_AUTH_TYPES[found.kind],
                # A profile of this user's ~/.databrickscfg would fill in what isn't given here.
                profile="",
                retry_timeout_seconds=RETRY_SECONDS,
                **given,
            )
        )
    except ValueError as error:
        problem = f"can't connect to {found.host} with {_said(found.kind)}: {_without(error, found)}"
        raise WorkspaceError(problem) from None
    _show_no_headers(client)
    return client


def _show_no_headers(client: WorkspaceClient) -> None:
    """Keep the SDK from putting a request with all its headers, the token's included, into an error's message."""
    parser: Any = client.api_client._api_client._error_parser
    understand = parser.get_api_error

    def without_headers(response: Any) -> Any:
        error = understand(response)
        if error is not None and "Request log:" in str(error):
            status = f"{response.status_code} {response.reason}"
            error.args = (f"{status}: the answer isn't one of Databricks' API. Is the workspace's URL right?",)
        return error

    parser.get_api_error = without_headers


def _without(error: object, found: Credentials) -> str:
    text = str(error)
    for value in found.values.values():
        text = text.replace(value, "***")
    return text


def _auth(settings: DatabricksSettings | None) -> str | None:
    return settings.auth if settings else None


def _host(settings: DatabricksSettings | None) -> str | None:
    return (settings.host if settings else None) or os.environ.get("DATABRICKS_HOST") or None


def _missing(kind: str) -> list[str]:
    return [name for name in KINDS[kind] if not os.environ.get(name)]


def _said(kind: str) -> str:
    return f"{kind} ({', '.join(KINDS[kind])})"


def _and(names: list[str]) -> str:
    return " and ".join(names) if len(names) < 3 else ", ".join(names[:-1]) + f" and {names[-1]}"
