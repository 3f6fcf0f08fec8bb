"""Metrics and the access log agree with what clients of real requests received."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import APIStatusError, OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.support.facts import UNKNOWN
from tests.support.servers import Server

pytestmark = pytest.mark.server

QUESTION = [{"role": "user", "content": UNKNOWN}]
OPTIONS: dict[str, Any] = {"temperature": 1, "seed": 5, "n": 2, "max_tokens": 12}
PER_TOKEN = ("token_entropy_nats_count", "token_variance_nats2_count")
PER_ANSWER = ("answer_risk_count", "flagged_answers_total")


class Counters:
    """The changes of the server's `tokenformer_*` metrics since the last call, by name without that prefix."""

    def __init__(self, server: Server) -> None:
        self.url, self.seen = f"{server.url}/metrics", Counter[str]()
        self.change()

    def change(self) -> Counter[str]:
        now: Counter[str] = Counter()
        for family in text_string_to_metric_families(httpx.get(self.url, timeout=60).text):
            for sample in family.samples:
                if sample.name.startswith("tokenformer_") and not sample.name.endswith(("_bucket", "_created")):
                    model = sample.labels.get("model_name", "demo")
                    key = sample.name.removeprefix("tokenformer_")
                    now[key if model == "demo" else f"{model} {key}"] += sample.value
        change, self.seen = Counter({name: now[name] - self.seen[name] for name in now}), now
        return change


@pytest.fixture
def counters(demo: Server) -> Iterator[Counters]:
    yield Counters(demo)


def line(server: Server, request_id: str) -> dict[str, Any]:
    """The log line of a request; it is written a moment after the client has its last byte."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for text in server.log.read_text(errors="replace").splitlines():
            if f'"request_id":"{request_id}"' in text:
                return dict(json.loads(text))
        time.sleep(0.05)
    raise AssertionError(f"the log has no line of {request_id}")


def receive(http: httpx.Client, path: str, body: dict[str, Any], request_id: str) -> list[dict[str, Any]]:
    """The answer, or the chunks of its stream."""
    response = http.post(path, json={"model": "demo"} | body, headers={"X-Request-Id": request_id})
    assert response.status_code == 200, response.text
    assert response.headers.get_list("x-request-id") == [request_id]
    if not body.get("stream"):
        return [response.json()]
    events = [event.removeprefix("data: ") for event in response.text.split("\n\n") if event.startswith("data: {")]
    return [json.loads(event) for event in events]


@pytest.fixture(scope="module")
def http(demo: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.url, timeout=60) as opened:
        yield opened


def statistics(choice: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Entropy and variance of the tokens in a choice, or in a chunk of one."""
    found = choice["logprobs"] or {}
    if "content" in found:
        yield from ((token["entropy"], token["variance"]) for token in found["content"])
    else:
        yield from zip(found.get("entropy", ()), found.get("variance", ()), strict=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_clients_were_told_is_counted(
    demo: Server, http: httpx.Client, counters: Counters, path: str, stream: bool
) -> None:
    chat = path == "/v1/chat/completions"
    body = OPTIONS | ({"messages": QUESTION, "logprobs": True} if chat else {"prompt": ["Hi", "The"], "logprobs": 0})
    body |= {"uncertainty": {"abstain_above": 0.5}, "stream": stream}
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    request_id = f"counted{path}-{stream}".replace("/", ".")
    parts = receive(http, path, body, request_id)
    written = line(demo, request_id)
    change = counters.change()

    choices = [choice for part in parts for choice in part["choices"]]
    tokens = [token for choice in choices for token in statistics(choice)]
    usage = next(part["usage"] for part in reversed(parts) if part.get("usage"))
    assert len(tokens) == usage["completion_tokens"] > 0
    for name in (*PER_TOKEN, "tokens_total"):
        assert change[name] == len(tokens), name
    assert change["token_entropy_nats_sum"] == pytest.approx(math.fsum(entropy for entropy, _ in tokens))
    assert change["token_variance_nats2_sum"] == pytest.approx(math.fsum(variance for _, variance in tokens))

    told = {choice["index"]: choice["uncertainty"] for choice in choices if choice.get("uncertainty")}
    assert len(told) == (2 if chat else 4)
    judged = [answer for answer in told.values() if answer["reason"] is None]
    assert change["answer_risk_count"] == len(judged)
    assert change["answer_risk_sum"] == pytest.approx(math.fsum(answer["risk"] for answer in judged))
    assert change["flagged_answers_total"] == sum(answer["abstain"] for answer in judged)
    assert change["request_seconds_count"] == 1
    assert change["time_to_first_token_seconds_count"] == stream
    assert change["time_per_output_token_seconds_count"] > 0

    assert (written["model"], written["stream"], written["ended"]) == ("demo", stream, "complete")
    assert written["prompt_tokens"] == usage["prompt_tokens"]
    assert written["completion_tokens"] == usage["completion_tokens"]
    assert written["finish_reasons"] == Counter(
        choice["finish_reason"] for choice in choices if choice["finish_reason"]
    )
    assert {choice["index"]: choice["risk"] for choice in written["uncertainty"]} == {
        index: answer["risk"] for index, answer in told.items()
    }
    for choice in written["uncertainty"]:
        assert {name: told[choice["index"]][name] for name in choice.keys() - {"index"}} == {
            name: value for name, value in choice.items() if name != "index"
        }
    assert 0 <= written["queued_seconds"] < written["seconds"]
    assert (written["first_token_seconds"] is not None) == stream
    if stream:
        assert written["first_token_seconds"] < written["seconds"]


def test_the_log_has_no_text(demo: Server, http: httpx.Client) -> None:
    said = {"messages": [{"role": "user", "content": "Pomegranate?"}], "user": "quince", "max_tokens": 5}
    spans = {"uncertainty": {"spans": True}, "stop": ["medlar"]}
    parts = receive(http, "/v1/chat/completions?fig=1", said | spans, "no-text")
    text = json.dumps(line(demo, "no-text"))
    answer = parts[0]["choices"][0]["message"]["content"]
    assert answer and answer not in text
    assert not any(word in text.lower() for word in ("pomegranate", "quince", "medlar", "fig"))


@pytest.mark.demo_only
def test_a_stage_has_its_own_counts(http: httpx.Client, counters: Counters) -> None:
    body = {"model": "demo:base", "prompt": "Hi", "max_tokens": 3, "logprobs": 0}
    (answer,) = receive(http, "/v1/completions", body, "stage")
    change = counters.change()
    assert change["demo:base tokens_total"] == answer["usage"]["completion_tokens"]
    assert change["demo:base token_entropy_nats_count"] == change["demo:base tokens_total"]
    assert not change["tokens_total"]
    assert 'tokenformer_tokens_total{growth_stage="base",model_name="demo:base"}' in http.get("/metrics").text


def test_without_uncertainty_tokens_are_counted_and_no_uncertainty(http: httpx.Client, counters: Counters) -> None:
    body = {"prompt": "Hi", "max_tokens": 3, "uncertainty": False}
    (answer,) = receive(http, "/v1/completions", body, "unscored")
    change = counters.change()
    assert change["tokens_total"] == answer["usage"]["completion_tokens"]
    assert not any(change[name] for name in (*PER_TOKEN, *PER_ANSWER))


def test_other_routes_are_counted(demo: Server, http: httpx.Client, counters: Counters) -> None:
    """Anthropic's route, which knows no uncertainty."""
    (answer,) = receive(http, "/v1/messages", {"messages": QUESTION, "max_tokens": 5}, "messages")
    assert counters.change()["tokens_total"] == answer["usage"]["output_tokens"]
    written = line(demo, "messages")
    assert (written["model"], written["completion_tokens"]) == ("demo", answer["usage"]["output_tokens"])
    assert written["uncertainty"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_mere_echo_has_no_tokens_for_anybody(
    demo: Server, http: httpx.Client, counters: Counters, stream: bool
) -> None:
    body = {"prompt": ["Hi", "The"], "echo": True, "max_tokens": 0, "logprobs": 0, "stream": stream}
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    parts = receive(http, "/v1/completions", body, f"echo-{stream}")
    usage, written = parts[-1]["usage"], line(demo, f"echo-{stream}")
    assert usage["completion_tokens"] == written["completion_tokens"] == 0
    assert usage["prompt_tokens"] == usage["total_tokens"] == written["prompt_tokens"] > 0
    change = counters.change()
    assert not any(change[name] for name in (*PER_TOKEN, "tokens_total"))


def test_beams_that_were_left_over_are_counted(demo: Server, http: httpx.Client, counters: Counters) -> None:
    body = {"prompt": "Hi", "n": 2, "use_beam_search": True, "max_tokens": 4}
    (answer,) = receive(http, "/v1/completions", body, "beams")
    assert counters.change()["tokens_total"] == answer["usage"]["completion_tokens"] == 8
    assert line(demo, "beams")["completion_tokens"] == 8


@pytest.mark.demo_only
def test_given_texts_are_logged_and_not_counted(demo: Server, http: httpx.Client, counters: Counters) -> None:
    body = {"prompt": "Hi", "completion": ["a b", "c"], "uncertainty": {"ensemble": 2}}
    (answer,) = receive(http, "/v1/uncertainty", body, "given")
    written = line(demo, "given")
    change = counters.change()
    assert not any(change[name] for name in (*PER_TOKEN, *PER_ANSWER, "tokens_total"))
    assert change["request_seconds_count"] == 1
    assert (written["model"], written["prompt_tokens"]) == ("demo", answer["usage"]["prompt_tokens"])
    assert written["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert [choice["risk"] for choice in written["uncertainty"]] == [
        choice["uncertainty"]["risk"] for choice in answer["choices"]
    ]


@pytest.mark.demo_only
def test_ensembles_are_not_counted(http: httpx.Client, counters: Counters) -> None:
    body = {"messages": QUESTION, "max_tokens": 3, "uncertainty": {"ensemble": 4}}
    (answer,) = receive(http, "/v1/chat/completions", body, "ensemble")
    assert counters.change()["tokens_total"] == answer["usage"]["completion_tokens"]


def test_a_mere_echo_is_not_counted(demo: Server, http: httpx.Client, counters: Counters) -> None:
    receive(http, "/v1/completions", {"prompt": "Hi", "max_tokens": 0, "echo": True}, "echo")
    assert line(demo, "echo")["completion_tokens"] == 0
    change = counters.change()
    assert not any(change[name] for name in (*PER_TOKEN, *PER_ANSWER, "tokens_total"))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "made-up", "messages": QUESTION}, 404),
        ({"model": "demo", "messages": QUESTION, "temperature": -1}, 400),
        ({"model": "demo", "messages": QUESTION, "uncertainty": 7}, 400),
    ],
)
def test_refused_requests_count_nothing(
    demo: Server, http: httpx.Client, counters: Counters, body: dict[str, Any], status: int
) -> None:
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == status
    written = line(demo, response.headers["x-request-id"])
    assert (written["status"], written["ended"], written["model"]) == (status, "rejected", None)
    assert not any(counters.change().values())
    assert "made-up" not in http.get("/metrics").text + json.dumps(written)


def test_a_client_that_goes_is_counted_up_to_there(demo: Server, http: httpx.Client, counters: Counters) -> None:
    """Tokens are counted when they are taken from the engine to be sent, which may be more than the client has read."""
    body = {"model": "demo", "prompt": "Hi", "max_tokens": 400, "n": 4, "temperature": 1, "ignore_eos": True}
    body |= {"stream": True, "logprobs": 0}
    read = 0
    headers = {"X-Request-Id": "gone"}
    with http.stream("POST", "/v1/completions", json=body, headers=headers) as response:
        for event in response.iter_lines():
            read += event.startswith("data: {")
            if read == 3:
                break
    written = line(demo, "gone")
    change = counters.change()
    assert (written["status"], written["ended"]) == (200, "client_gone")
    assert 3 <= written["completion_tokens"] < 1600
    for name in (*PER_TOKEN, "tokens_total"):
        assert change[name] == written["completion_tokens"], name
    assert not any(change[name] for name in (*PER_ANSWER, "request_seconds_count"))
    assert written["uncertainty"] == []


def test_one_id_for_header_answer_and_log(demo: Server, client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=QUESTION, max_tokens=2)  # type: ignore[arg-type]
    assert answer.id == f"chatcmpl-{answer._request_id}"
    assert line(demo, str(answer._request_id))["completion_tokens"] == 2
    named = {"X-Request-Id": "one-id"}
    answer = client.chat.completions.create(
        model="demo",
        messages=QUESTION,
        max_tokens=2,
        extra_headers=named,  # type: ignore[arg-type]
    )
    assert (answer._request_id, answer.id) == ("one-id", "chatcmpl-one-id")
    with pytest.raises(APIStatusError) as refused:
        client.chat.completions.create(model="other", messages=QUESTION, extra_headers=named)  # type: ignore[arg-type]
    assert refused.value.request_id == "one-id"


def test_probes_and_metrics_are_not_logged(demo: Server, http: httpx.Client) -> None:
    for path in ("/health", "/livez", "/readyz", "/metrics"):
        request_id = f"quiet{path}".replace("/", ".")
        assert http.get(path, headers={"X-Request-Id": request_id}).headers["x-request-id"] == request_id
    receive(http, "/v1/completions", {"prompt": "Hi", "max_tokens": 1}, "after-quiet")
    line(demo, "after-quiet")
    assert "quiet." not in demo.log.read_text(errors="replace")


def test_promtool_finds_nothing_wrong_with_ours(http: httpx.Client) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool; on Debian: apt-get install prometheus")
    receive(http, "/v1/completions", {"prompt": "Hi", "max_tokens": 2, "stream": True}, "promtool")
    ours = [text for text in http.get("/metrics").text.splitlines() if "tokenformer_" in text]
    assert any(text.startswith("tokenformer_tokens_total") for text in ours)
    found = subprocess.run(
        [promtool, "check", "metrics"], input="\n".join([*ours, ""]), capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert not found.stdout + found.stderr
