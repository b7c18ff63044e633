"""Who may ask Dagster under `mlops ui`: its own pages and its user's programs."""

import contextlib

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from mlops_dagster.webserver import Guard

OWN = {"host": "127.0.0.1:3000"}
FOREIGN = {**OWN, "origin": "http://evil.example"}
JSON = {"content-type": "application/json"}


async def page(_):
    return PlainTextResponse("passed")


async def logs(websocket):
    await websocket.accept()
    await websocket.send_text("passed")


# Not entered: its lifespan has no say here.
DAGSTER = Starlette(
    routes=[
        Route("/graphql", page, methods=["GET", "POST"]),
        Route("/report_asset_materialization/prices", page, methods=["POST"]),
        Route("/{path:path}", page),
        WebSocketRoute("/graphql", logs),
    ]
)


def asked(method, path, headers, token=None):
    client = TestClient(Guard(DAGSTER, "127.0.0.1", token), base_url="http://127.0.0.1:3000")
    return client.request(method, path, headers=headers).status_code


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/jobs", OWN, 200),
        ("GET", "/jobs", {"host": "localhost:3000", "origin": "http://localhost:3000"}, 200),
        ("GET", "/graphql", {**OWN, "accept": "text/html,*/*"}, 200),  # the playground
        ("POST", "/graphql", {**OWN, **JSON, "origin": "http://127.0.0.1:3000"}, 200),
        ("POST", "/graphql", {**OWN, "content-type": "application/json; charset=utf-8"}, 200),  # a program
        ("POST", "/graphql", {**OWN, "content-type": "application/graphql"}, 200),
        ("POST", "/report_asset_materialization/prices", OWN, 200),
        ("GET", "/graphql?query=mutation{x}", {**OWN, "accept": "*/*"}, 405),
        ("GET", "/graphql?query=mutation{x}", {**FOREIGN, "accept": "text/html"}, 403),
        ("POST", "/graphql", {**OWN, "content-type": "text/plain; application/json"}, 415),
        ("POST", "/graphql?query=mutation{x}", OWN, 415),
        ("POST", "/graphql?query=mutation{x}", {**OWN, "content-type": "application/csp-report"}, 415),
        ("POST", "/graphql", {**FOREIGN, **JSON}, 403),
        ("POST", "/graphql", {**OWN, **JSON, "origin": "http://["}, 403),
        ("POST", "/graphql", {**OWN, **JSON, "origin": "null"}, 403),
        ("POST", "/graphql", {**OWN, **JSON, "origin": "http://127.0.0.1:5000"}, 403),  # another server's page
        ("POST", "/report_asset_materialization/prices", FOREIGN, 403),
        ("OPTIONS", "/graphql", FOREIGN, 403),
        ("GET", "/jobs", {"host": "evil.example"}, 403),
    ],
)
def test_other_pages_are_refused_and_nobody_else(method, path, headers, status):
    assert asked(method, path, headers) == status


@pytest.mark.parametrize(("headers", "passes"), [(OWN, True), (FOREIGN, False), ({"host": "evil.example"}, False)])
def test_live_logs_are_for_the_own_page(headers, passes):
    client = TestClient(Guard(DAGSTER, "127.0.0.1"), base_url="http://127.0.0.1:3000")
    refused = contextlib.nullcontext() if passes else pytest.raises(WebSocketDisconnect)
    with refused, client.websocket_connect("/graphql", headers=headers) as websocket:
        assert websocket.receive_text() == "passed"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Basic ", 401),
        ("Basic !", 401),
        ("Digest hunter2", 401),
        ("Bearer hunter2", 200),
        ("Basic YW55Ym9keTpodW50ZXIy", 200),  # anybody:hunter2
    ],
)
def test_elsewhere_it_asks_for_the_password(authorization, status):
    headers = OWN if authorization is None else {**OWN, "authorization": authorization}
    assert asked("GET", "/jobs", headers, token="hunter2") == status
