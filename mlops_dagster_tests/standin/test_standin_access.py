"""Who may ask: tokens, OAuth for machines, permissions."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError, Unauthenticated
from databricks.sdk.service import iam

from mlops_dagster_tests.contracts.workspace import CLIENT_SECRET, Workspace
from mlops_dagster_tests.standin.__main__ import settings_from
from mlops_dagster_tests.standin.settings import Settings

pytestmark = pytest.mark.xdist_group("standin_access")


def test_a_wrong_token(ws: Workspace) -> None:
    with pytest.raises(Unauthenticated):
        WorkspaceClient(host=ws.url, token="wrong", auth_type="pat").current_user.me()
    assert ws.requests("/Me")[-1]["status"] == 401


def test_what_is_not_given_is_drawn_at_each_start(tmp_path: Path) -> None:
    """A fixed token would be a door: a run is anybody's code."""
    drawn = [settings_from(["--root", str(tmp_path)]) for _ in range(2)]
    assert len({secret for one in drawn for secret in (one.token, one.client_secret)}) == 4
    assert settings_from(["--root", str(tmp_path), "--token", "mine"]).token == "mine"


@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}], ids=str)
def test_other_web_pages_may_not_ask(ws: Workspace, header: dict[str, str]) -> None:
    for path in ("/", "/api/2.0/preview/scim/v2/Me"):
        asking = urllib.request.Request(f"{ws.url}{path}", headers={"Authorization": f"Bearer {ws.token}", **header})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asking)
        assert refused.value.code == 403
        assert "evil.example" in json.load(refused.value)["message"]


def test_oauth_for_machines(ws: Workspace) -> None:
    secret = CLIENT_SECRET
    client = WorkspaceClient(host=ws.url, client_id=Settings.client_id, client_secret=secret, auth_type="oauth-m2m")
    assert client.current_user.me().user_name == "standin@example.com"
    with pytest.raises(ValueError, match="invalid_client"):
        WorkspaceClient(host=ws.url, client_id="x", client_secret="y", auth_type="oauth-m2m").current_user.me()
    assert secret not in (ws.root / "requests.jsonl").read_text()


def test_permissions(ws: Workspace) -> None:
    api = ws.client().permissions

    def entry(user: str, level: str) -> iam.AccessControlRequest:
        return iam.AccessControlRequest(user_name=user, permission_level=iam.PermissionLevel(level))

    def seen(answer: iam.ObjectPermissions) -> list[tuple[str, str]]:
        return [(each.user_name, each.all_permissions[0].permission_level.value) for each in answer.access_control_list]

    api.update("jobs", "12", access_control_list=[entry("a", "CAN_VIEW")])
    api.update("jobs", "12", access_control_list=[entry("b", "CAN_MANAGE")])
    assert seen(api.get("jobs", "12")) == [("a", "CAN_VIEW"), ("b", "CAN_MANAGE")]
    api.set("jobs", "12", access_control_list=[entry("c", "CAN_VIEW")])
    assert seen(api.get("jobs", "12")) == [("c", "CAN_VIEW")]
    assert ws.requests("/permissions/jobs/12")[0]["body"]["access_control_list"][0]["user_name"] == "a"
    with pytest.raises(DatabricksError, match="one of"):
        api.update("clusters", "1-2-3", access_control_list=[entry("a", "CAN_VIEW")])


def test_secrets_through_the_sdk(ws: Workspace) -> None:
    client = ws.client()
    client.secrets.create_scope("scope")
    client.secrets.put_secret("scope", "key", string_value="value")
    assert [each.key for each in client.secrets.list_secrets("scope")] == ["key"]
    with pytest.raises(DatabricksError, match="already exists"):
        client.secrets.create_scope("scope")
    assert "value" not in [str(each.get("body")) for each in ws.requests("/secrets/put")]
