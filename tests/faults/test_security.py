"""A server with keys shows clients nothing of its machine, its log, its traces, or each other."""

from __future__ import annotations

import json
import random
import re
import string
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from server.gate.keys import KEYS_VARIABLE
from tests.support.collector import Collector, collecting
from tests.support.demo_server import DEMO
from tests.support.servers import Server, started

pytestmark = pytest.mark.server

FIRST, SECOND, THIRD = "sk-first-7Qx", "sk-second-8Rk", "sk-third-9Zp"
MARK = "zqxmarker"
"""A text in every request here, wherever text is possible."""

CHAT = {"prompt": MARK, "messages": [{"role": "user", "content": MARK}], "input": MARK, "max_tokens": 4}


@dataclass(frozen=True)
class Guarded:
    server: Server
    root: Path
    collector: Collector

    def client(self, key: str = FIRST) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, headers={"Authorization": f"Bearer {key}"}, timeout=120)

    def log(self) -> str:
        return self.server.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    root = tmp_path_factory.mktemp("guarded")
    (root / "keys").write_text(f"{FIRST}\n{SECOND}\n")
    (root / "deltas" / "empty").mkdir(parents=True)
    flags = ["--served-model-name", "demo", "--api-key-file", root / "keys", "--isolate-keys"]
    flags += ["--enable-prompt-tokens-details", "--growth-root", root / "deltas", "--trace"]
    flags += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    with pytest.MonkeyPatch.context() as patch, collecting() as collector:
        patch.setenv(KEYS_VARIABLE, THIRD)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds; spans wait 5 s for company by default
        flags += ["--otlp-traces-endpoint", collector.url]
        with started(DEMO, root / "log", flags, "demo") as server:
            yield Guarded(server, root, collector)


def test_every_source_of_keys_opens_the_server(guarded: Guarded) -> None:
    for key, status in ((FIRST, 200), (SECOND, 200), (THIRD, 200), ("wrong", 401)):
        with guarded.client(key) as client:
            assert client.get("/v1/models").status_code == status
    for path in ("/livez", "/readyz", "/health"):
        assert httpx.get(guarded.server.url + path).status_code == 200


def test_no_key_is_in_the_process_table_or_handed_on(guarded: Guarded) -> None:
    own = psutil.Process(guarded.server.process.pid)
    children = own.children(recursive=True)
    assert children, "the engine is a process of its own"
    for process in (own, *children):
        assert not any(key in " ".join(process.cmdline()) for key in (FIRST, SECOND, THIRD))
    for process in children:
        assert THIRD not in str(process.environ())


def test_the_cards_show_no_paths(guarded: Guarded) -> None:
    with guarded.client() as client:
        cards = client.get("/v1/models").json()["data"]
    assert {card["id"]: card["root"] for card in cards} == {"demo": "demo", "demo:base": "demo"}


# Traces.


def ask(guarded: Guarded, **headers: str) -> Any:
    question = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 4}
    with guarded.client() as client:
        return client.post("/v1/chat/completions", json=question, headers=headers).raise_for_status().json()


def test_a_request_has_a_span_without_its_text(guarded: Guarded) -> None:
    answer = ask(guarded, **{"X-Request-Id": "traced-1"})
    span, attributes = guarded.collector.span_of("chatcmpl-traced-1")
    assert answer["id"] == "chatcmpl-traced-1"
    assert span.name == "llm_request"
    assert attributes["gen_ai.usage.prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert attributes["gen_ai.usage.completion_tokens"] == answer["usage"]["completion_tokens"]
    assert 0 < attributes["gen_ai.latency.time_to_first_token"] <= attributes["gen_ai.latency.e2e"]
    text = str(span)
    assert "Who are you" not in text and answer["choices"][0]["message"]["content"] not in text
    assert not any(key in text for key in (FIRST, SECOND, THIRD))


def test_the_clients_span_is_its_parent(guarded: Guarded) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    ask(guarded, **{"X-Request-Id": "traced-2", "traceparent": f"00-{trace}-{parent}-01"})
    span, _ = guarded.collector.span_of("chatcmpl-traced-2")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)


# One key's cached prefixes do not speed up another's requests.


def cached(guarded: Guarded, key: str, text: str, **options: Any) -> int:
    body = {"model": "demo", "prompt": text, "max_tokens": 1, "uncertainty": False} | options
    with guarded.client(key) as client:
        usage = client.post("/v1/completions", json=body).raise_for_status().json()["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"])


def test_prefixes_are_cached_for_one_key_only(guarded: Guarded) -> None:
    text = "Where does the one who asks this live? " * 20
    assert cached(guarded, FIRST, text) == 0
    assert cached(guarded, FIRST, text) > 0
    assert cached(guarded, SECOND, text) == 0
    assert cached(guarded, SECOND, text) > 0
    assert cached(guarded, THIRD, text) == 0


def test_a_salt_of_the_clients_own_separates_further_and_leads_to_no_other_key(guarded: Guarded) -> None:
    text = "And what does the one who asks this eat? " * 20
    assert cached(guarded, FIRST, text, cache_salt="a") == 0
    assert cached(guarded, FIRST, text, cache_salt="b") == 0
    assert cached(guarded, FIRST, text, cache_salt="a") > 0
    assert cached(guarded, SECOND, text, cache_salt="a") == 0


def test_so_are_those_of_ensembles_and_given_texts(guarded: Guarded) -> None:
    """Both have their own way to the engine. They leave the prompt's blocks to their key, and members find them."""
    text = "Who keeps a heron? " * 20
    body = {"model": "demo", "prompt": text, "completion": "Nobody.", "uncertainty": {"ensemble": 2}}
    with guarded.client(FIRST) as client:
        answer = client.post("/v1/uncertainty", json=body).raise_for_status().json()
    summary = answer["choices"][0]["uncertainty"]
    assert summary["ensemble_tokens"] < 2 * (32 + summary["tokens"]) < answer["usage"]["prompt_tokens"]
    assert cached(guarded, SECOND, text) == 0
    assert cached(guarded, FIRST, text) > 0


# Whatever goes wrong, no answer says anything of the machine, and no log anything of the request.

BODIES: list[Any] = [
    *({}, [], None, 1, MARK, [{}], {MARK: MARK}),
    *(CHAT | {name: {MARK: 1}} for name in ("model", "prompt", "messages", "input", "stop", "tools", "uncertainty")),
    *(CHAT | {name: MARK} for name in ("temperature", "max_tokens", "n", "logprobs", "stream", "tool_choice", "seed")),
    *(CHAT | {"max_tokens": value} for value in (-1, 10**9, 2**70)),
    *(
        CHAT | {"chat_template": value}
        for value in ("{{ 1/0 }}", "{{ ''.__class__.__mro__ }}", "{% include 'x' %}", MARK)
    ),
    *(CHAT | {"structured_outputs": {kind: f"({MARK}"}} for kind in ("regex", "grammar", "json", "choice")),
    *(CHAT | {"messages": [{"role": MARK, "content": MARK}]}, CHAT | {"messages": [{"role": "user"}]}),
    *(
        CHAT | {"messages": [{"role": "user", "content": [part]}]}
        for part in ({"type": MARK}, {"type": "text"}, {"type": "image_url", "image_url": {"url": f"data:{MARK}"}})
    ),
    CHAT | {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": MARK, "arguments": MARK}}]}]},
    CHAT | {"tools": [{"type": "function", "function": {"name": MARK, "parameters": {"type": MARK}}}]},
    CHAT | {"tools": [{"type": "function", "function": {"name": MARK}}], "tool_choice": "required"},
    CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": MARK}}}},
    *(CHAT | {"logit_bias": {token: 1}} for token in (MARK, "99999999", "-1")),
    *(CHAT | {"prompt": ids} for ids in ([2**40], [-1], [[99_999]], [])),
    *(CHAT | {"vllm_xargs": {MARK: 1}}, CHAT | {"kv_transfer_params": {MARK: 1}}, CHAT | {"prompt_embeds": MARK}),
    *(CHAT | {"request_id": f"{MARK} x"}, CHAT | {"cache_salt": ""}, CHAT | {"bad_words": [""]}),
    CHAT | {"prompt": MARK * 3000, "messages": [{"role": "user", "content": MARK * 3000}], "input": MARK * 3000},
    *(CHAT | {"completion": 5}, CHAT | {"completion": MARK * 3000}, CHAT | {"stream": True, "n": 2}),
    *({"tokens": [10**9]}, {"tokens": [-1]}, {"tokens": MARK}, {"prompt": f"\x00{MARK}"}, {"user": f"\x00{MARK}"}),
    CHAT | {"model": "demo:base"},
]


def raw_bodies() -> list[bytes]:
    good = json.dumps(CHAT).encode()
    return [b"{", b"\xff\xfe", good[:-1], good.replace(b"4", b"NaN"), json.dumps({"prompt": f"\ud800{MARK}"}).encode()]


def lora_bodies(root: Path) -> list[dict[str, Any]]:
    """Requests to load deltas that are missing, are no deltas, or must not be loaded."""
    paths = [
        str(root),
        str(root / "deltas" / "missing"),
        str(root / "deltas" / "empty"),
        "empty",
        "missing",
        "..",
        "\0",
    ]
    return [
        *({"lora_name": MARK, "lora_path": path} for path in paths),
        *({"name": MARK, "src": path} for path in [*paths, {MARK: 1}]),
    ]


def leaks(root: Path) -> re.Pattern[str]:
    places = [
        str(root),
        str(DEMO.parents[1]),
        sys.prefix,
        sys.base_prefix,
        sysconfig.get_path("purelib"),
        str(Path.home()),
    ]
    named = [re.escape(place) for place in places if len(place) > 1]
    shapes = [r"site-packages", r"Traceback", r'File \\?"', r"\b0x[0-9a-f]{6,}", r"\w\.py\b", r"object at"]
    return re.compile("|".join([*named, *shapes]))


def test_errors_tell_nothing_of_the_machine_and_the_log_nothing_of_requests(guarded: Guarded) -> None:
    forbidden = leaks(guarded.root)
    statuses = []
    with guarded.client() as client:
        paths = client.get("/openapi.json").raise_for_status().json()["paths"]
        assert {"/v1/chat/completions", "/v1/messages", "/v1/uncertainty", "/v1/trace", "/adapters"} <= set(paths)
        posts = [re.sub(r"{\w+}", "x", path) for path, methods in paths.items() if "post" in methods]
        bodies = [json.dumps(body).encode() for body in (*BODIES, *lora_bodies(guarded.root))] + raw_bodies()
        # uvicorn closes a connection after a crash; each request has its own.
        headers = {"Content-Type": "application/json", "Connection": "close"}
        for path in posts:
            for body in bodies:
                answer = client.post(path, content=body, headers=headers)
                statuses.append(answer.status_code)
                shown = f"{answer.headers}\n{answer.text}"
                assert not forbidden.search(shown), f"{path} {body[:200]!r}: {shown[:2000]}"
    assert {200, 400, 404} <= set(statuses), "some succeed, so that answers were made as well"
    for key in (FIRST, SECOND, THIRD):
        assert key not in guarded.log()
    quoted = [line for line in guarded.log().splitlines() if MARK in line]
    assert not quoted, "\n".join(quoted[:5])


def test_a_delta_is_loaded_from_below_the_root_only(guarded: Guarded) -> None:
    outside = guarded.root / "deltas" / "link"
    outside.symlink_to(guarded.root)
    with guarded.client() as client:
        for path in (str(guarded.root), "..", "link", "/", "deltas/../.."):
            for route, body in (
                ("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": path}),
                ("/adapters", {"name": "a", "src": path}),
            ):
                answer = client.post(route, json=body)
                assert answer.status_code == 400
                assert "outside the directory" in answer.json()["error"]["message"]
        told = client.post("/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "empty"}).json()
        assert "empty/growth.json" in told["error"]["message"], "below it, the path is told as the client knows it"


# Nobody can fill the metrics.


def series(client: httpx.Client) -> set[str]:
    lines = client.get("/metrics").raise_for_status().text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def storm(guarded: Guarded, client: httpx.Client, rounds: int) -> None:
    """Requests with new methods, paths, models and header values."""
    routes = [
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/uncertainty",
        "/v1/responses",
        "/tokenize",
        "/invocations",
    ]
    for _ in range(rounds):
        word = "".join(random.choices(string.ascii_letters, k=9))
        paths = [f"/{word}", f"/v1/{word}", f"/v1/models/{word}", f"/v1/responses/{word}", f"/metrics/{word}"]
        paths += [f"{path}/" for path in paths] + [f"/playground/{word}", f"/playground/{word}/", f"/version?{word}=1"]
        headers = {
            f"X-{word}": word,
            "User-Agent": word,
            "Origin": f"http://{word}",
            "Host": word,
            "X-Request-Id": word,
        }
        for path in paths:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND"):
                client.request(method, path, headers=headers)
        for path in routes:
            for model in (word, "demo"):
                body = CHAT | {"model": model, "completion": word, "user": word, "metadata": {word: word}}
                client.post(path, json=body, headers=headers)
        httpx.get(f"{guarded.server.url}/{word}", headers={"Authorization": f"Bearer {word}"})


def test_the_number_of_series_is_constant(guarded: Guarded) -> None:
    with guarded.client() as client:
        storm(guarded, client, 1)
        before = series(client)
        storm(guarded, client, 4)
        assert series(client) - before == set()
    assert any(name.startswith('http_requests_total{handler="/v1/completions"') for name in before), "they are counted"
