"""Statistics of generated and prompt tokens, against transformers in float64: chunked prefill, mixed batches, choices.

The third architecture is behind the server of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from model_impl.stock import PARTS
from model_impl.wire import report_args
from tests.support.engines import engine, generate, statistics_rows, token_params
from tests.support.stock import CONTEXT, MODELS, expected, write_stock_model

pytestmark = pytest.mark.engine

CHUNK = 48
"""Tokens of one step: the longest prompts take several."""

PARAMS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.3, "seed": 3, "top_p": 0.9},
    {"temperature": 0.8, "n": 2, "seed": 5},
    {"logit_bias": {7: 100.0}, "logprobs": 4},
    {"repetition_penalty": 1.5, "temperature": 1, "seed": 8},
]


@dataclass(frozen=True)
class Served:
    llm: Any
    model: PreTrainedModel


@pytest.fixture(scope="module", params=["qwen3", "gpt_neox"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    checkpoint = tmp_path_factory.mktemp(request.param) / "model"
    model = write_stock_model(checkpoint, request.param)
    with engine(checkpoint, max_num_batched_tokens=CHUNK, max_num_seqs=8, max_model_len=CONTEXT) as llm:
        yield Served(llm, model)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(250, (length,), generator=generator).tolist() for length in (1, 5, 33, 100, 150)]


def params(**options: Any) -> Any:
    return token_params(max_tokens=12, extra_args=report_args(), **options)


def assert_expected(model: PreTrainedModel, ids: Sequence[int], positions: Sequence[Any]) -> None:
    """The positions have the numbers of the last tokens of `ids`, one each."""
    last = slice(-len(positions), None)
    wanted, entries = expected(model, ids), [next(iter(position.values())) for position in positions]
    assert (statistics_rows(positions) - wanted.statistics[last]).abs().max() < 1e-4
    found = torch.tensor([entry.epistemic for entry in entries], dtype=torch.float64)
    torch.testing.assert_close(found, wanted.epistemic[last], rtol=1e-3, atol=1e-6)


def test_generated_tokens_have_the_statistics_of_the_raw_distribution(served: Served) -> None:
    """All at once, some sampled, some banned from what is likely."""
    given = prompts()
    answers = generate(served.llm, given, [params(**options) for options in PARAMS])
    assert [len(answer.outputs) for answer in answers] == [1, 1, 2, 1, 1]
    for prompt, answer in zip(given, answers, strict=True):
        for choice in answer.outputs:
            assert len(choice.token_ids) == 12
            assert_expected(served.model, [*prompt, *choice.token_ids], choice.logprobs)
            for position in choice.logprobs:
                assert next(iter(position.values())).places is None
    assert set(answers[3].outputs[0].token_ids) == {7}


def test_so_do_the_tokens_of_prompts(served: Served) -> None:
    for again in range(2):  # the second time they could be found in the prefix cache
        for prompt, answer in zip(prompts(), generate(served.llm, prompts(), params(prompt_logprobs=0)), strict=True):
            assert answer.prompt_logprobs[0] is None, again
            if len(prompt) > 1:
                assert_expected(served.model, prompt, answer.prompt_logprobs[1:])
            assert_expected(served.model, [*prompt, *answer.outputs[0].token_ids], answer.outputs[0].logprobs)


def test_a_request_that_wants_no_report_has_statistics_alone(served: Served) -> None:
    prompt = prompts()[2]
    (answer,) = generate(served.llm, [prompt], token_params(max_tokens=12))
    (choice,) = answer.outputs
    assert all(next(iter(position.values())).epistemic is None for position in choice.logprobs)
    wanted = expected(served.model, [*prompt, *choice.token_ids]).statistics[-12:]
    assert (statistics_rows(choice.logprobs) - wanted).abs().max() < 1e-4


OTHERS = sorted(MODELS.keys() - {"llama", "qwen3", "gpt_neox"})


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_architecture_has_them(name: str, tmp_path: Path) -> None:
    model, given = write_stock_model(tmp_path / "model", name), prompts()
    with engine(tmp_path / "model", max_num_batched_tokens=CHUNK, max_num_seqs=8, max_model_len=CONTEXT) as llm:
        answers = generate(llm, given, [params()] * len(given))
    for prompt, answer in zip(given, answers, strict=True):
        (choice,) = answer.outputs
        assert_expected(model, [*prompt, *choice.token_ids], choice.logprobs)


def test_all_architectures_with_the_closed_form_are_among_these() -> None:
    assert {kind.__name__ for kind, _, _ in MODELS.values()} == set(PARTS)


def test_a_compiled_model_has_them(tmp_path: Path) -> None:
    """The hooks are traced with the forward, and a second step finds what its own has left."""
    model, given = write_stock_model(tmp_path / "model", "llama"), prompts()[:3]
    with engine(tmp_path / "model", enforce_eager=False, max_num_seqs=8, max_model_len=CONTEXT) as llm:
        answers = generate(llm, given, [params()] * len(given))
    for prompt, answer in zip(given, answers, strict=True):
        (choice,) = answer.outputs
        assert_expected(model, [*prompt, *choice.token_ids], choice.logprobs)
