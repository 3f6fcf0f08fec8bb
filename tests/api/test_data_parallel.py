"""Ensembles of a server whose engines share the requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from model_impl.reference.ensemble import ensemble_uncertainty
from tests.support.demo_answers import reference
from tests.support.demo_server import DEMO
from tests.support.facts import UNKNOWN
from tests.support.rounding import logit_tolerance
from tests.support.servers import Server, started
from tests.support.tolerances import assert_within, ensemble_tolerance

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

MEMBERS = 3


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two engines; one API process, so that its ensembles alternate between them."""
    flags = ["--served-model-name", "demo", "--data-parallel-size", 2, "--api-server-count", 1]
    flags += ["--kv-cache-memory-bytes", 64 << 20]
    with started(DEMO, tmp_path_factory.mktemp("spread") / "log", flags, "demo") as server:
        yield server


def computed_by_engine(server: Server) -> list[float]:
    """Prompt tokens that each engine has computed or found."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return [float(line.split()[-1]) for line in lines if line.startswith("vllm:prompt_tokens_total{")]


def test_all_members_meet_in_one_engine_whichever_it_is(spread: Server) -> None:
    body: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": UNKNOWN}],
        "return_token_ids": True,
        "uncertainty": {"ensemble": MEMBERS},
    }
    for _ in range(4):
        before = computed_by_engine(spread)
        answer = httpx.post(f"{spread.url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()
        growth = sorted(after - own for after, own in zip(computed_by_engine(spread), before, strict=True))
        (choice,) = answer["choices"]
        prompt, tokens = answer["prompt_token_ids"], choice["token_ids"]
        ids, summary = torch.tensor([[*prompt, *tokens]]), choice["uncertainty"]
        expected = ensemble_uncertainty(reference(), ids, len(prompt), MEMBERS)[0]
        e = logit_tolerance(reference(), ids)[0, len(prompt) - 1 : -1]
        found = torch.tensor([summary["epistemic"], summary["aleatoric"]]).T
        assert_within(found, expected, ensemble_tolerance(e, reference().config.vocab_size))
        members = MEMBERS * (len(prompt) + len(tokens) - 1)
        assert growth in ([0, len(prompt) + members], [len(prompt), members])
