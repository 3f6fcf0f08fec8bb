"""Nobody without a key gets anywhere, by whatever spelling: in vLLM's whole app, over real connections."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.routing import Mount, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from server.gate.auth import OPEN
from server.gate.keys import CACHE_SALT, KEYS_VARIABLE
from server.metrics import REJECTED_REQUESTS
from server.process.serve import parse
from tests.support.paths import ROOT
from tests.support.ports import free_ports

DEMO = ROOT / "demo" / "checkpoint"
KEY = {"Authorization": "Bearer right"}


def app_of(monkeypatch: pytest.MonkeyPatch, *flags: str, keys: str | None = "right,second") -> FastAPI:
    """vLLM's app with everything of ours, on an engine that is only asked how it is."""
    from vllm.entrypoints.launchers.app import build_app

    monkeypatch.setenv("VLLM_PLUGINS", "tokenformer")
    if keys is not None:
        monkeypatch.setenv(KEYS_VARIABLE, keys)
    app: FastAPI = build_app(parse([str(DEMO), "--access-log", "off", *flags]), ("generate",))

    async def well() -> None:
        return None

    app.state.engine_client = SimpleNamespace(check_health=well, errored=False)
    app.state.health = SimpleNamespace(unready_reason=well)
    app.state.admission = SimpleNamespace(longest=1, refusal=lambda weight: None)
    return app


@pytest.fixture(scope="module")
def closed() -> Iterator[FastAPI]:
    """An app with keys."""
    with pytest.MonkeyPatch.context() as patch:
        yield app_of(patch)


@pytest.fixture(scope="module")
def client(closed: FastAPI) -> TestClient:
    return TestClient(closed, raise_server_exceptions=False)


def test_every_route_of_the_app_is_closed_but_three(closed: FastAPI, client: TestClient) -> None:
    """Those without a place in the OpenAPI document as well, for each of their methods."""
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


def test_a_browser_can_open_the_page(client: TestClient) -> None:
    refused = client.get("/playground", headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic realm=")
    for path in ("/playground", "/playground/app.js", "/version"):
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


# Over connections: no client library tidies the request up.

PATHS = [
    "/v1/models",
    "//v1/models",
    "///v1///models",
    "/v1//models",
    "/./v1/models",
    "/v1/../v1/models",
    "/%76%31/models",
    "/v1%2fmodels",
    "/v1/models/",
    "/v1/models;livez",
    "/v1/models?/livez",
    "/V1/MODELS",
    "/livez/../v1/models",
    "/v1/../livez/../v1/models",
    "/livez/..;/v1/models",
    "/livez%2f..%2fv1/models",
    "/livez%2e%2e/v1/models",
    "/livez/%2e%2e/v1/models",
    "/livez/%2e%2e%2fv1%2fmodels",
    "/livez\\..\\v1\\models",
    "/livez%00/v1/models",
    "/livez%00",
    "/livez%20",
    "/livez/",
    "/livez;x",
    "//livez",
    "/Livez",
    "/LIVEZ",
    "/livez/v1/models",
    "/readyz/x",
    "/health/x",
    "/api/livez",
    "/api/v1/models",
    "/apilivez",
    "/version",
    "/metrics",
    "/metrics/",
    "/metrics/livez",
    "/metricsx",
    "/",
    "*",
    "http://x/v1/models",
    "http://x//v1/models",
    "http://livez/v1/models",
    "http://user:right@x/v1/models",
]


def raw(port: int, request: str) -> int:
    """The status of the answer to exactly these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = b""
        while b"\r\n" not in answer and (part := connection.recv(4096)):
            answer += part
    return int(answer.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def port(closed: FastAPI) -> Iterator[int]:
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(closed, port=port, lifespan="off", log_level="critical", http="httptools"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_leads_past_the_gate(port: int, path: str, method: str) -> None:
    for host in ("127.0.0.1", "localhost", "evil.example", "/livez", "127.0.0.1/livez?"):
        tail = f"Host: {host}\r\nContent-Length: 0\r\nX-Original-URL: /livez\r\nX-Forwarded-Prefix: /livez\r\n\r\n"
        assert raw(port, f"{method} {path} HTTP/1.1\r\n{tail}") in (400, 401), host


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/%6civez", "/livez?x=1", "http://x/livez"])
def test_the_three_are_open(port: int, path: str) -> None:
    assert raw(port, f"GET {path} HTTP/1.1\r\nHost: any\r\n\r\n") == 200


def test_a_request_hidden_behind_an_open_one_is_closed(port: int) -> None:
    """Two requests on one connection, and one in the body of another, are two requests."""
    hidden = "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for first in (
        "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall((first + hidden).encode())
            answer = connection.makefile("rb").read()
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"401"]


def test_a_root_path_opens_nothing(closed: FastAPI, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed, "root_path", "/api")
    for path in ("/livez", "/api/livez"):
        assert raw(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n") == 200
    for path in ("/api/v1/models", "/v1/models", "/api//livez", "/api/api/livez", "/apilivez", "/api", "/api/livez/x"):
        assert raw(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n") == 401


# Without keys only this machine can ask, and it must not be a page that asks.


@pytest.fixture(scope="module")
def local() -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        yield TestClient(app_of(patch, keys=None), "http://localhost", raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("127.1.2.3", 200),
        ("localhost", 200),
        ("LOCALHOST.:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0", 403),
        ("[::1", 200),
        ("[::2]", 403),
        ("", 403),
    ],
)
def test_a_loopback_server_answers_to_its_own_names(local: TestClient, host: str, status: int) -> None:
    answer = local.get("/version", headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "unknown_host"
        assert host not in answer.text or not host


def test_where_there_are_keys_or_others_may_ask_any_name_will_do(client: TestClient) -> None:
    assert client.get("/version", headers=KEY | {"Host": "evil.example"}).status_code == 200
    with pytest.MonkeyPatch.context() as patch:
        public = TestClient(app_of(patch, "--host", "0.0.0.0", "--allow-public-without-key", keys=None))
    assert public.get("/version", headers={"Host": "model.example"}).status_code == 200


@pytest.mark.parametrize("method", ["PROPFIND", "CONNECT", "XYZZY"])
def test_made_up_methods_are_refused(local: TestClient, method: str) -> None:
    answer = local.request(method, "/version")
    assert answer.status_code == 501
    assert answer.json()["error"]["code"] == "unknown_method"


def test_no_redirect_is_made_from_what_a_client_sent(local: TestClient) -> None:
    for path in ("/version/", "/playground/", "/livez/"):
        assert local.get(path, follow_redirects=False).status_code == 404


@pytest.mark.parametrize("isolate", [True, False])
def test_what_separates_the_cache_is_that_of_the_key(isolate: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        app = app_of(patch, *(["--isolate-keys"] if isolate else []))

    @app.get("/salt")
    async def salt() -> Any:
        return CACHE_SALT.get()

    client = TestClient(app)
    found = [
        client.get("/salt", headers={"Authorization": f"Bearer {key}"}).json() for key in ("right", "second", "right")
    ]
    assert CACHE_SALT.get() is None
    if isolate:
        assert found[0] == found[2] != found[1]
        assert len(found[0]) == 32
    else:
        assert found == [None] * 3


def test_the_clients_of_others_send_what_is_asked_for(port: int) -> None:
    for auth in (httpx.BasicAuth("", "right"), httpx.BasicAuth("anyone", "second")):
        assert httpx.get(f"http://127.0.0.1:{port}/version", auth=auth).status_code == 200
