"""Nobody without a key gets anywhere in vLLM's whole app."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from server.gate.auth import OPEN
from server.gate.context import CONTEXT
from server.metrics import REJECTED_REQUESTS
from tests.support.gate_app import KEY, app_of


def test_every_route_of_the_app_is_closed_but_three(closed: FastAPI, client: TestClient) -> None:
    """This holds for each method, and for routes without a place in the OpenAPI document."""
    answered = {}
    for route in closed.routes:
        assert not isinstance(route, WebSocketRoute)
        path: str = re.sub(r"{\w+(:\w+)?}", "x", route.path)  # type: ignore[attr-defined]
        methods = ["GET", "POST"] if isinstance(route, Mount) else sorted(route.methods)  # type: ignore[attr-defined]
        answered |= {(method, path): client.request(method, path).status_code for method in methods}
    assert {"/v1/chat/completions", "/metrics", "/playground", "/openapi.json", "/invocations", "/docs"} <= {
        path for _, path in answered
    }
    open_ones = {key for key, status in answered.items() if status != 401}
    assert open_ones == {("GET", path) for path in OPEN}
    assert {answered[key] for key in open_ones} == {200}


@pytest.mark.parametrize("path", sorted(OPEN))
def test_probes_take_no_body(client: TestClient, path: str) -> None:
    """Without a key nothing is read, whatever it is, and by no spelling of the path."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = client.request(method, path, content=b"nonsense")
        assert answer.status_code == 405
        assert answer.json()["error"]["code"] == "method_not_allowed"
        assert answer.headers["allow"] == "GET, HEAD"
        assert client.request(method, f"/{path}", content=b"nonsense").status_code == 401
    assert client.head(path).status_code == 200
    assert client.options(path).status_code == 405


def test_no_route_there_is_none_the_wiser(client: TestClient) -> None:
    assert client.get("/nowhere").status_code == 401
    assert client.get("/nowhere", headers=KEY).status_code == 404


@pytest.mark.parametrize("key", ["right", "second"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_opens(client: TestClient, scheme: str, key: str) -> None:
    assert client.get("/version", headers={"Authorization": f"{scheme} {key}"}).status_code == 200


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "right",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer right,second",
        "Bearer Right",
        "Bearer rightx",
        "Bearer right second",
        "Bearer schl\u00fcssel",
        "Token right",
        "Basic right",
        "Basic ====",
        "Basic /////w==",
        basic("right"),
        basic("right:"),
        basic("user:wrong"),
    ],
)
def test_nothing_else_does(client: TestClient, value: str) -> None:
    answer = client.get("/v1/models", headers={"Authorization": value.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
    for word in ("right", "wrong", "schl"):
        assert word not in answer.text, "what was sent is not sent back"


def test_rejections_are_counted(client: TestClient) -> None:
    counter = REJECTED_REQUESTS.labels("unauthorized")
    before = counter._value.get()
    client.get("/v1/models")
    client.get("/v1/models", headers=KEY)
    assert counter._value.get() == before + 1


def test_a_browser_can_open_the_pages(client: TestClient) -> None:
    for path in ("/", "/pages.css", "/docs", "/docs/start.js", "/playground", "/playground/app.js"):
        refused = client.get(path, headers={"Authorization": "Bearer wrong"})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic realm=")
        assert client.get(path, headers={"Authorization": basic("anyone:right")}).status_code == 200
    for path in ("/version", "/openapi.json"):
        assert client.get(path, headers={"Authorization": basic("anyone:right")}).status_code == 200
    assert client.get("/playgrounds").headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("site", "status"), [("none", 200), ("same-origin", 200), ("same-site", 401), ("cross-site", 401)]
)
def test_a_page_from_elsewhere_cannot_use_the_password_that_a_browser_keeps(
    client: TestClient, site: str, status: int
) -> None:
    headers = {"Authorization": basic("anyone:right"), "Sec-Fetch-Site": site}
    assert client.get("/version", headers=headers).status_code == status
    assert client.get("/version", headers=KEY | {"Sec-Fetch-Site": site}).status_code == 200


def test_a_preflight_is_answered_and_reaches_no_route(client: TestClient) -> None:
    asked = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/v1/models", headers=asked)
    assert (answer.status_code, answer.text) == (400, "Disallowed CORS origin")
    for missing in asked:
        rest = {name: value for name, value in asked.items() if name != missing}
        assert client.options("/v1/models", headers=rest).status_code == 401
    assert client.get("/v1/models", headers=asked).status_code == 401


def test_web_sockets_are_closed(client: TestClient) -> None:
    for headers in ({}, KEY):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime", headers=headers):
            pass


@pytest.mark.parametrize("isolate", [True, False])
def test_what_separates_the_cache_is_that_of_the_key(isolate: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        app = app_of(patch, *(["--isolate-keys"] if isolate else []))

    @app.get("/salt")
    async def salt() -> Any:
        return CONTEXT.get().cache_salt

    client = TestClient(app)
    found = [
        client.get("/salt", headers={"Authorization": f"Bearer {key}"}).json() for key in ("right", "second", "right")
    ]
    assert CONTEXT.get().cache_salt is None
    if isolate:
        assert found[0] == found[2] != found[1]
        assert len(found[0]) == 32
    else:
        assert found == [None] * 3


def test_the_clients_of_others_send_what_is_asked_for(port: int) -> None:
    for auth in (httpx.BasicAuth("", "right"), httpx.BasicAuth("anyone", "second")):
        assert httpx.get(f"http://127.0.0.1:{port}/version", auth=auth).status_code == 200
