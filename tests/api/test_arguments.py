"""Engine arguments that a client may not set, on every route that generates."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.servers import Server

pytestmark = pytest.mark.server

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hi", "max_tokens": 3},
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT,
    "/v1/responses": {"input": "hi", "max_output_tokens": 3},
}
OWN = ["tokenformer_unshown", "tokenformer_report", "tokenformer_member", "tokenformer_x"]


def refused(demo: Server, route: str, **fields: Any) -> str:
    """The parameter that is named in the refusal."""
    answer = httpx.post(demo.url + route, json={"model": "demo"} | ROUTES[route] | fields, timeout=60)
    assert answer.status_code == 400, answer.text[:500]
    return str(answer.json()["error"]["param"])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", [*OWN, "kv_transfer_params"])
@pytest.mark.parametrize("value", [1, "x"], ids=str)
def test_arguments_of_the_server_are_refused(demo: Server, route: str, name: str, value: Any) -> None:
    assert refused(demo, route, vllm_xargs={name: value}) == "vllm_xargs"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("name", "value"), [("allowed_token_ids", [5]), ("bad_words", ["yes", "no", "y", "n"])], ids=["allowed", "bad"]
)
def test_bans_beside_a_grammar_are_refused(demo: Server, name: str, value: Any, stream: bool) -> None:
    for route in ("/v1/completions", "/v1/chat/completions"):
        fields = {"structured_outputs": {"choice": ["yes", "no"]}, "stream": stream, name: value}
        assert refused(demo, route, **fields) == name
