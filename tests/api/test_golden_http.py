"""A golden case through HTTP: token-id prompts, `echo`, `logprobs`, with the official client."""

from collections.abc import Iterator

import pytest
import torch
from openai import OpenAI

from model_impl.wire import STATISTICS
from tests.support.exact import exact_statistics
from tests.support.golden_cases import TOLERANCE, GoldenCase, load_case
from tests.support.golden_server import assert_close, assert_greedy_answer_is_golden, converted, statistics_of
from tests.support.servers import started

pytestmark = [pytest.mark.server, pytest.mark.demo_only]


SERVED = "01_base_l2gelu"
"""One case; tests/conformance has every kind of row operation, over the same engine."""


@pytest.fixture(scope="module")
def case() -> GoldenCase:
    return load_case(SERVED)


@pytest.fixture(scope="module")
def golden_client(case: GoldenCase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    root = tmp_path_factory.mktemp("golden")
    flags = ["--max-logprobs", "-1", "--kv-cache-memory-bytes", str(64 << 20)]
    with (
        started(converted(case.name, root), root / "log", flags) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echoed_prompts_have_the_golden_values(case: GoldenCase, golden_client: OpenAI, max_tokens: int) -> None:
    """Every prompt token, and the one generated after it, has golden values; several prompts make several choices."""
    golden = case.io["logits"][..., : case.config.vocab_size]
    prompts = case.io["input_ids"]
    response = golden_client.completions.create(
        model=case.name, prompt=prompts.tolist(), echo=True, logprobs=3, max_tokens=max_tokens, temperature=0
    )
    assert len(response.choices) == len(prompts)
    for row, choice in enumerate(response.choices):
        assert choice.index == row
        ids = torch.cat([prompts[row], golden[row, -1:].argmax(-1)])[: len(prompts[row]) + max_tokens]
        log_p = golden[row].log_softmax(-1)[: len(ids) - 1]
        logprobs = choice.logprobs
        assert logprobs.tokens == [f"t{word}" for word in ids]
        assert logprobs.token_logprobs[0] is None
        assert_close(torch.tensor(logprobs.token_logprobs[1:]), log_p.gather(-1, ids[1:, None])[:, 0])
        assert_close(statistics_of(logprobs, 1), exact_statistics(golden[row])[: len(ids) - 1])
        assert [getattr(logprobs, name)[0] for name in (*STATISTICS, "rank")] == [None] * 4
        assert logprobs.rank[1:] == ((log_p > log_p.gather(-1, ids[1:, None])).sum(-1) + 1).tolist()
        for position, row_log_p in zip(logprobs.top_logprobs[1:], log_p, strict=True):
            best = {f"t{word}": row_log_p[word].item() for word in row_log_p.topk(3).indices.tolist()}
            assert {word: position[word] for word in best} == pytest.approx(best, abs=TOLERANCE)
        assert choice.uncertainty["tokens"] == max_tokens
        first = None if max_tokens == 0 else choice.logprobs.entropy[-1]
        assert choice.uncertainty["first_token_entropy"] == first


def test_all_logprobs_of_the_prompt(case: GoldenCase, golden_client: OpenAI) -> None:
    golden = case.io["logits"][0, :, : case.config.vocab_size]
    prompt = case.io["input_ids"][0].tolist()
    response = golden_client.completions.create(
        model=case.name, prompt=prompt, max_tokens=1, temperature=0, extra_body={"prompt_logprobs": -1}
    )
    positions = response.choices[0].prompt_logprobs
    assert positions[0] is None
    rows = [[position[str(word)]["logprob"] for word in range(case.config.vocab_size)] for position in positions[1:]]
    assert_close(torch.tensor(rows), golden[:-1].log_softmax(-1))
    chosen = [position[str(word)] for position, word in zip(positions[1:], prompt[1:], strict=True)]
    found = torch.tensor([[entry[name] for name in STATISTICS] for entry in chosen])
    assert_close(found, exact_statistics(golden)[:-1])


def test_a_greedy_answer_has_the_golden_tokens_and_values(case: GoldenCase, golden_client: OpenAI) -> None:
    assert_greedy_answer_is_golden(case, golden_client)


def test_a_base_model_chats_by_the_default_template(case: GoldenCase, golden_client: OpenAI) -> None:
    answer = golden_client.chat.completions.create(
        model=case.name, messages=[{"role": "user", "content": "t5 t6 t7"}], max_tokens=4, logprobs=True
    )
    choice = answer.choices[0]
    assert choice.uncertainty["tokens"] == len(choice.logprobs.content) == 4
