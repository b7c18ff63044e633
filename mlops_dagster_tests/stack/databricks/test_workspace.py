"""Credentials come from the environment, of one kind, and are shown nowhere."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from databricks.sdk.errors import DatabricksError

from mlops_dagster.stack.databricks.settings import DatabricksSettings
from mlops_dagster.stack.databricks.workspace import (
    WorkspaceError,
    connect,
    credential_problem,
    credential_state,
    credentials,
)
from mlops_dagster_tests.contracts.workspace import CLIENT_SECRET, Workspace

pytestmark = [pytest.mark.usefixtures("no_credentials"), pytest.mark.xdist_group("stack_databricks")]
HOST = "https://example.cloud.databricks.com"


def settings(**given: object) -> DatabricksSettings:
    return DatabricksSettings.model_validate({"host": HOST, "cluster": {"serverless": {}}, **given})


def give(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setenv(name, f"hidden-{name}")


def test_no_host() -> None:
    with pytest.raises(WorkspaceError, match=r"databricks\.host .* DATABRICKS_HOST"):
        connect()


def test_no_credentials_names_all_ways() -> None:
    with pytest.raises(WorkspaceError, match=r"no credentials .*DATABRICKS_TOKEN.*CLIENT_SECRET.*ARM_TENANT_ID"):
        connect(settings())


def test_half_of_a_kind_names_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "DATABRICKS_CLIENT_ID")
    assert "Only DATABRICKS_CLIENT_SECRET (for oauth) is missing." in str(credential_problem(settings()))


def test_two_kinds_are_refused_unless_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET")
    with pytest.raises(WorkspaceError, match=r"two kinds of credentials.*token or oauth") as caught:
        credentials(settings())
    assert "hidden" not in str(caught.value)
    assert credentials(settings(auth="token")).values == {"DATABRICKS_TOKEN": "hidden-DATABRICKS_TOKEN"}
    assert credentials(settings(auth="oauth")).kind == "oauth"
    with pytest.raises(WorkspaceError, match=r"auth='azure'.*ARM_CLIENT_ID, ARM_CLIENT_SECRET and ARM_TENANT_ID"):
        credentials(settings(auth="azure"))


def test_the_state_says_set_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "DATABRICKS_TOKEN", "ARM_CLIENT_ID")
    assert credential_state(settings(auth="azure")) == {
        "ARM_CLIENT_ID": "set",
        "ARM_CLIENT_SECRET": "missing",
        "ARM_TENANT_ID": "missing",
    }
    assert credential_state()["DATABRICKS_HOST"] == "missing"
    assert credential_state(settings())["DATABRICKS_TOKEN"] == "set"
    assert "hidden" not in str(credential_state())


def test_nothing_shows_a_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "DATABRICKS_TOKEN")
    assert "hidden" not in repr(credentials(settings()))
    client = connect(settings())
    assert "hidden" not in repr(client) + repr(client.config)


@pytest.mark.parametrize("kind", ["token", "oauth"])
def test_a_real_call(ws: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", ws.url)
    # What the user's own profiles say has no part in it, not even that there is no such profile.
    (tmp_path / "databrickscfg").write_text("[DEFAULT]\nhost = https://elsewhere.example.com\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "databrickscfg"))
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "another")
    if kind == "token":
        monkeypatch.setenv("DATABRICKS_TOKEN", ws.token)
    else:
        monkeypatch.setenv("DATABRICKS_CLIENT_ID", "standin-client")
        monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", CLIENT_SECRET)
    assert connect().current_user.me().user_name


def test_the_kind_that_counts_is_the_one_that_is_used(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET")
    monkeypatch.setenv("DATABRICKS_TOKEN", ws.token)
    assert connect(settings(host=ws.url, auth="token")).current_user.me().user_name


def test_another_token_is_refused_without_showing_it(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "DATABRICKS_TOKEN")
    client = connect(settings(host=ws.url))
    with pytest.raises(DatabricksError) as caught:
        list(client.jobs.list_runs())
    assert "hidden" not in str(caught.value)


@pytest.fixture
def gibberish() -> Iterator[str]:
    """A server whose answers no client of Databricks understands, as a proxy's may be."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(418)
            self.end_headers()
            self.wfile.write(b"\x00{short and stout")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_answer_that_cant_be_parsed_doesnt_show_the_token(gibberish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK's own message has the whole request in it, with the Authorization header.
    give(monkeypatch, "DATABRICKS_TOKEN")
    client = connect(settings(host=gibberish))
    with pytest.raises(DatabricksError) as caught:
        client.jobs.get_run(1)
    assert "hidden" not in repr(caught.value) + str(caught.value)
    assert "418" in str(caught.value)
