"""The outermost middleware, around small routes that behave in every way a route can."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import REGISTRY

from server.gate.access_log import AccessLog
from server.gate.context import CONTEXT, RequestRecord
from server.requests.request_ids import valid_request_id
from server.uncertainty.score import ChoiceScore
from server.uncertainty.tokens import TokenScore

SECRET = "The capital of Peru is Lima"


def record() -> RequestRecord:
    found = CONTEXT.get().record
    assert found is not None
    return found


def application(access_log: str = "json") -> FastAPI:
    app = FastAPI()
    app.state.args = Namespace(access_log=access_log)
    app.add_middleware(AccessLog)

    @app.post("/v1/answer")
    async def answer(request: Request) -> Any:
        noted = record()
        noted.model, noted.prompt_tokens, noted.completion_tokens = "m", 3, 2
        noted.queued_seconds = 0.25
        noted.finish_reasons.update(["stop", "length"])
        tokens = [TokenScore(-0.5, entropy, 0.5, 0.1, SECRET) for entropy in (1.0, 2.0)]
        for index in (1, 0):
            noted.uncertainty[index] = ChoiceScore.of(tokens).summary(text=SECRET)
        return {"id": request.headers["x-request-id"]}

    @app.post("/v1/stream")
    async def stream() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            record().model = "m"
            yield "data: 1\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/v1/broken-stream")
    async def broken_stream() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            record().failed = True
            yield "data: error\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/v1/models/{name}")
    async def refused(name: str) -> JSONResponse:
        return JSONResponse({}, 404, {"x-request-id": "of-another-middleware"})

    @app.get("/v1/overloaded")
    async def overloaded() -> JSONResponse:
        return JSONResponse({}, 503)

    @app.get("/v1/bug")
    async def bug() -> None:
        raise RuntimeError("/srv/secret/path")

    @app.get("/v1/fails")
    async def fails() -> JSONResponse:
        return JSONResponse({}, 500)

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"recorded": CONTEXT.get().record is not None}

    return app


def ask(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, path, **options)

    return asyncio.run(asked())


def logged(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_line_says_how_it_went_and_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    headers = {"x-request-id": "mine-1", "authorization": "Bearer hidden"}
    response = ask(application(), "POST", "/v1/answer?q=hidden", json={"prompt": "hidden"}, headers=headers)
    written = capfd.readouterr().err
    assert "hidden" not in written and SECRET not in written
    (line,) = map(json.loads, written.splitlines())
    assert response.headers["x-request-id"] == response.json()["id"] == line["request_id"] == "mine-1"
    assert line["time"].endswith("+00:00")
    told = {name: line[name] for name in ("method", "route", "status", "ended", "model", "stream")}
    assert told == {
        "method": "POST",
        "route": "/v1/answer",
        "status": 200,
        "ended": "complete",
        "model": "m",
        "stream": False,
    }
    assert (line["prompt_tokens"], line["completion_tokens"], line["queued_seconds"]) == (3, 2, 0.25)
    assert line["finish_reasons"] == {"stop": 1, "length": 1}
    assert line["first_token_seconds"] is None and line["seconds"] > 0
    assert [choice["index"] for choice in line["uncertainty"]] == [0, 1]
    assert line["uncertainty"][0] == {
        "index": 0,
        "risk": None,
        "reason": "no_calibration",
        "calibrated": False,
        "abstain": None,
        "mean_entropy": 1.5,
        "max_entropy": 2.0,
        "mean_variance": 0.5,
        "min_logprob": -0.5,
        "tokens": 2,
    }


def test_without_an_id_one_is_made_that_the_route_sees(capfd: pytest.CaptureFixture[str]) -> None:
    response = ask(application(), "POST", "/v1/answer")
    (line,) = logged(capfd)
    assert response.headers["x-request-id"] == response.json()["id"] == line["request_id"]
    assert valid_request_id(line["request_id"])


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, '{"a":1}', "a\tb", "\u00fc", "../etc"])
def test_an_id_that_could_not_be_logged_is_refused_and_not_repeated(
    bad: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = count("tokenformer_rejected_requests_total", reason="invalid_request_id")
    response = ask(application(), "POST", "/v1/answer", headers={"x-request-id": bad.encode()})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request_id", "X-Request-Id")
    (line,) = logged(capfd)
    assert line["ended"] == "rejected" and line["model"] is None
    assert response.headers["x-request-id"] == line["request_id"] != bad
    assert valid_request_id(line["request_id"])
    if bad:
        assert bad not in response.text
    assert count("tokenformer_rejected_requests_total", reason="invalid_request_id") == before + 1


def test_two_ids_are_refused() -> None:
    headers = [("x-request-id", "a"), ("x-request-id", "b")]
    assert ask(application(), "POST", "/v1/answer", headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("path", "status", "ended", "route"),
    [
        ("/v1/models/zelda", 404, "rejected", "/v1/models/{name}"),
        ("/v1/overloaded", 503, "rejected", "/v1/overloaded"),
        ("/v1/fails", 500, "error", "/v1/fails"),
        ("/v1/bug", 500, "error", "/v1/bug"),
        ("/v1/zelda", 404, "rejected", None),
        ("/v1/answer", 405, "rejected", "/v1/answer"),
    ],
)
def test_a_failed_request_is_logged_with_its_status_ending_and_route(
    path: str, status: int, ended: str, route: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    response = ask(application(), "GET", path, headers={"x-request-id": "mine-2"})
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == ["mine-2"]
    assert "/srv" not in response.text
    (line,) = logged(capfd)
    assert (line["status"], line["ended"], line["route"], line["request_id"]) == (status, ended, route, "mine-2")


def test_what_is_turned_away_before_the_routes_has_its_route(capfd: pytest.CaptureFixture[str]) -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = application()
        await AccessLog(JSONResponse({}, 401))(scope, receive, send)

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(refusing), base_url="http://server") as client:
            return await client.get("/v1/models/zelda")

    response = asyncio.run(asked())
    assert valid_request_id(response.headers["x-request-id"])
    (line,) = logged(capfd)
    assert (line["status"], line["ended"], line["route"]) == (401, "rejected", "/v1/models/{name}")


def test_an_error_event_makes_a_stream_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(application(), "POST", "/v1/broken-stream").status_code == 200
    (line,) = logged(capfd)
    assert (line["status"], line["ended"], line["stream"]) == (200, "error", True)


def test_only_complete_answers_are_timed(capfd: pytest.CaptureFixture[str]) -> None:
    before = count("tokenformer_request_seconds_count", model_name="m")
    ask(application(), "POST", "/v1/stream")
    ask(application(), "GET", "/v1/models/zelda")
    ask(application(), "POST", "/v1/broken-stream")
    assert count("tokenformer_request_seconds_count", model_name="m") == before + 1
    assert [line["ended"] for line in logged(capfd)] == ["complete", "rejected", "error"]


def test_a_client_that_goes_is_noted(capfd: pytest.CaptureFixture[str]) -> None:
    app = application()
    begun = asyncio.Event()

    @app.post("/v1/endless")
    async def endless() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            while True:
                yield "data: 1\n\n"
                begun.set()
                await asyncio.sleep(0.01)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def receive() -> dict[str, Any]:
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/endless",
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(app(scope, receive, send))
    (line,) = logged(capfd)
    assert (line["status"], line["ended"], line["stream"]) == (200, "client_gone", True)


def test_probes_and_the_pages_files_are_neither_logged_nor_recorded(capfd: pytest.CaptureFixture[str]) -> None:
    response = ask(application(), "GET", "/health")
    assert response.json() == {"recorded": False}
    assert valid_request_id(response.headers["x-request-id"])
    ask(application(), "GET", "/playground/app.js")
    assert logged(capfd) == []


def test_methods_are_of_a_fixed_set(capfd: pytest.CaptureFixture[str]) -> None:
    ask(application(), "ZELDA", "/v1/answer")
    (line,) = logged(capfd)
    assert line["method"] == "other"


def test_a_log_that_is_off_has_no_lines_but_requests_get_ids(capfd: pytest.CaptureFixture[str]) -> None:
    response = ask(application("off"), "POST", "/v1/answer")
    assert valid_request_id(response.headers["x-request-id"])
    assert logged(capfd) == []


def test_not_a_number_is_null(capfd: pytest.CaptureFixture[str]) -> None:
    app = application()

    @app.post("/v1/nan")
    async def nan() -> None:
        token = TokenScore(-0.5, float("nan"), float("nan"), 0.1, "")
        record().uncertainty[0] = ChoiceScore.of([token]).summary()

    ask(app, "POST", "/v1/nan")
    (line,) = logged(capfd)
    assert line["uncertainty"][0]["mean_entropy"] is None
