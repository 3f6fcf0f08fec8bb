"""The vLLM model equals the official implementation, however vLLM cuts and caches the work.

Golden logits are themselves up to 3.3e-5 away from a float64 derivation, and so may be ours: statistics are compared
within 1e-4 here, and within their own 1e-5 on equal logits in tests/unit/model_impl/kernels/test_uncertainty.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.engines import (
    assert_exact_statistics,
    engine,
    generate,
    saved_model,
    statistics_rows,
    token_params,
    whole_rows,
)
from tests.support.exact import exact_statistics
from tests.support.golden_cases import CASES, PROMPT_TOKENS, TOLERANCE, GoldenCase, load_case

pytestmark = pytest.mark.engine

CHUNK = 16
"""`max_num_batched_tokens` of the chunking engine: every prompt of 48 tokens takes three steps or more."""


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> GoldenCase:
    return load_case(request.param)


@pytest.fixture(scope="module")
def checkpoint(case: GoldenCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / case.name
    saved_model(path, case.config, case.weights)
    return path


@pytest.fixture(scope="module")
def whole(checkpoint: Path) -> Iterator[Any]:
    """Prompts in one piece; logprobs are the logits as they are."""
    with engine(checkpoint, logprobs_mode="raw_logits", enable_prefix_caching=False) as llm:
        yield llm


@pytest.fixture(scope="module")
def chunking(checkpoint: Path) -> Iterator[Any]:
    options = {"max_num_batched_tokens": CHUNK, "max_num_seqs": 4, "enable_chunked_prefill": True}
    with engine(checkpoint, enable_prefix_caching=True, **options) as llm:
        yield llm


def golden_logits(case: GoldenCase, name: str = "logits") -> torch.Tensor:
    return case.io[name][..., : case.config.vocab_size]


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=TOLERANCE, rtol=0)


def assert_prompts_score_as_golden(llm: Any, case: GoldenCase, expected: torch.Tensor) -> None:
    """`expected` [2, 48, V]: what `prompt_logprobs` must be after each position, and then the first answer's."""
    vocabulary = case.config.vocab_size
    statistics = exact_statistics(golden_logits(case))
    params = token_params(max_tokens=1, logprobs=-1, prompt_logprobs=-1)
    for row, output in enumerate(generate(llm, case.io["input_ids"].tolist(), params)):
        positions = [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]
        assert output.prompt_logprobs[0] is None
        assert_close(whole_rows(positions, vocabulary), expected[row])
        assert_close(statistics_rows(positions), statistics[row])
        chosen = [*output.prompt_token_ids[1:], *output.outputs[0].token_ids]
        higher = expected[row] > expected[row].gather(-1, torch.tensor(chosen)[:, None])
        ranks = [position[word].rank for position, word in zip(positions, chosen, strict=True)]
        assert ranks == (higher.sum(-1) + 1).tolist()


def assert_greedy_as_golden(llm: Any, case: GoldenCase, steps: torch.Tensor) -> None:
    """`steps` [2, 16, V]: what `logprobs` must be at each generated token."""
    greedy = case.io["greedy_ids"]
    statistics = exact_statistics(golden_logits(case, "greedy_step_logits"))
    prompts, answers = greedy[:, :PROMPT_TOKENS].tolist(), greedy[:, PROMPT_TOKENS:].tolist()
    outputs = generate(llm, prompts, token_params(max_tokens=len(answers[0]), logprobs=-1))
    for row, output in enumerate(outputs):
        assert list(output.outputs[0].token_ids) == answers[row]
        assert_close(whole_rows(output.outputs[0].logprobs, case.config.vocab_size), steps[row])
        assert_close(statistics_rows(output.outputs[0].logprobs), statistics[row])


def test_logits_at_every_prompt_position(whole: Any, case: GoldenCase) -> None:
    assert_prompts_score_as_golden(whole, case, golden_logits(case))


def test_statistics_are_exact_on_the_logits_that_the_engine_saw(whole: Any, case: GoldenCase) -> None:
    params = token_params(max_tokens=16, logprobs=-1, prompt_logprobs=-1, temperature=1, seed=1)
    for output in generate(whole, case.io["input_ids"].tolist(), params):
        positions = [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]
        assert_exact_statistics(statistics_rows(positions), whole_rows(positions, case.config.vocab_size))


def test_greedy_answers_through_the_paged_cache(whole: Any, case: GoldenCase) -> None:
    assert_greedy_as_golden(whole, case, golden_logits(case, "greedy_step_logits"))


def test_chunked_prompts_give_the_golden_logits(chunking: Any, case: GoldenCase) -> None:
    assert_prompts_score_as_golden(chunking, case, golden_logits(case).log_softmax(-1))


def test_greedy_answers_with_prompts_between_them(chunking: Any, case: GoldenCase) -> None:
    assert_greedy_as_golden(chunking, case, golden_logits(case, "greedy_step_logits").log_softmax(-1))


def test_prefix_cache_hits(chunking: Any, case: GoldenCase) -> None:
    """The second request finds the first block of 32 tokens in the cache, and prefills only the rest."""
    rows = case.io["input_ids"].tolist()
    expected, statistics = golden_logits(case).log_softmax(-1), exact_statistics(golden_logits(case))
    params = token_params(max_tokens=1, logprobs=-1)
    for row, prompt in enumerate(rows):
        generate(chunking, [prompt], params)
        for length in (len(prompt), 40, 33):
            output = generate(chunking, [prompt[:length]], params)[0]
            assert output.num_cached_tokens == 32
            assert_close(whole_rows(output.outputs[0].logprobs, case.config.vocab_size)[0], expected[row, length - 1])
            assert_close(statistics_rows(output.outputs[0].logprobs)[0], statistics[row, length - 1])
