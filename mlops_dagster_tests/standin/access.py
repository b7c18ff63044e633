"""Who may ask: tokens, OAuth for machines, permissions on jobs and clusters, secrets."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from mlops_dagster_tests.standin.answers import Answer
from mlops_dagster_tests.standin.errors import ApiError, invalid
from mlops_dagster_tests.standin.settings import Settings

LEVELS = {
    "jobs": {"CAN_VIEW", "CAN_MANAGE_RUN", "IS_OWNER", "CAN_MANAGE"},
    "clusters": {"CAN_ATTACH_TO", "CAN_RESTART", "CAN_MANAGE"},
}


class Access:
    """Tokens that are accepted, and the lists of who may do what."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tokens = {settings.token}
        self._permissions: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def check(self, authorization: str | None) -> None:
        if (authorization or "").removeprefix("Bearer ") not in self._tokens:
            raise ApiError(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type or invalid.")

    def oidc(self, path: str, authorization: str | None, content: bytes) -> Answer:
        """Answer the two calls of OAuth for machines: where to ask for a token, and the token."""
        if path == "/oidc/.well-known/oauth-authorization-server":
            url = f"{self.settings.url}/oidc"
            return Answer.json(
                {"issuer": url, "authorization_endpoint": f"{url}/v1/authorize", "token_endpoint": f"{url}/v1/token"}
            )
        given = {name: values[0] for name, values in parse_qs(content.decode()).items()}
        client, secret = given.get("client_id", ""), given.get("client_secret", "")
        if (authorization or "").startswith("Basic "):
            pair = base64.b64decode((authorization or "").removeprefix("Basic ")).decode()
            client, _, secret = pair.partition(":")
        if (client, secret) != (self.settings.client_id, self.settings.client_secret):
            return Answer.json({"error": "invalid_client", "error_description": "Client authentication failed"}, 401)
        if given.get("grant_type") != "client_credentials":
            return Answer.json({"error": "unsupported_grant_type"}, 400)
        token = f"standin-oauth-{secrets.token_hex(16)}"
        with self._lock:
            self._tokens.add(token)
        return Answer.json({"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": "all-apis"})

    def permissions(self, method: str, kind: str, thing: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """GET, add to (PATCH) or replace (PUT) the permissions of one job or cluster."""
        if kind not in LEVELS:
            raise invalid(f"The stand-in has permissions for {', '.join(LEVELS)}, not for {kind}.")
        given = body.get("access_control_list") or []
        for entry in given:
            who = [name for name in ("user_name", "group_name", "service_principal_name") if entry.get(name)]
            if len(who) != 1 or entry.get("permission_level") not in LEVELS[kind]:
                raise invalid(f"An entry needs one principal and one of {sorted(LEVELS[kind])}, got {entry}.")
        with self._lock:
            kept = self._permissions.get((kind, thing), [])
            if method != "GET":
                kept = self._permissions[kind, thing] = [*(kept if method == "PATCH" else []), *given]
        return {
            "object_id": f"/{kind}/{thing}",
            "object_type": kind.removesuffix("s"),
            "access_control_list": [
                {
                    **{name: value for name, value in entry.items() if name != "permission_level"},
                    "all_permissions": [{"permission_level": entry["permission_level"], "inherited": False}],
                }
                for entry in kept
            ],
        }

    def secrets(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Answer `/api/2.0/secrets/...`: scopes/create, scopes/list, put, list, get, delete."""
        file = self.settings.root / "secrets.json"
        with self._lock:
            scopes: dict[str, dict[str, str]] = json.loads(file.read_text()) if file.exists() else {}
            scope, key = arguments.get("scope", ""), arguments.get("key", "")
            if operation == "scopes/list":
                return {"scopes": [{"name": name, "backend_type": "DATABRICKS"} for name in scopes]}
            if operation == "scopes/create":
                if scope in scopes:
                    raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Scope {scope} already exists!")
                scopes[scope] = {}
            elif scope not in scopes:
                raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Scope {scope} does not exist!")
            elif operation == "list":
                return {"secrets": [{"key": name} for name in scopes[scope]]}
            elif operation == "put":
                scopes[scope][key] = arguments.get("string_value") or ""
            elif key not in scopes[scope]:
                raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Failed to get secret {key} for scope {scope}.")
            elif operation == "get":
                return {"key": key, "value": base64.b64encode(scopes[scope][key].encode()).decode()}
            elif operation == "delete":
                del scopes[scope][key]
            else:
                raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for 'secrets/{operation}'")
            file.touch(mode=0o600)
            file.chmod(0o600)
            file.write_text(json.dumps(scopes))
        return {}
