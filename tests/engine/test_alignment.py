"""Every generated token has the statistics of its own distribution, whatever happens around it.

The engine's report is compared, position by position, with the reference's full recomputation of the same ids.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from model_impl.reference.model import ReferenceTokenformer
from tests.support.bytes_model import END, write_bytes_model
from tests.support.engines import assert_recomputed, engine, generate, statistics_rows

pytestmark = pytest.mark.engine

KV_BLOCKS = 14
"""Blocks of 32 tokens: a little more than two requests at full length, so that requests of a crowd are preempted."""


@dataclass
class Answer:
    """One choice, reassembled from a stream's deltas."""

    ids: list[int] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)
    text: str = ""
    reason: str | None = None
    steps: list[int] = field(default_factory=list)
    """The number of tokens in each delta."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytes") / "model"


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> ReferenceTokenformer:
    return write_bytes_model(checkpoint)


@pytest.fixture(scope="module")
def crowded(checkpoint: Path, reference: ReferenceTokenformer) -> Iterator[Any]:
    """Prompts are chunked, several tokens arrive at once, and memory is short."""
    config = reference.config
    block = 32 * 2 * config.num_hidden_layers * config.num_attention_heads * 32 * 4  # heads of 12 are cached as 32
    options = {"max_num_batched_tokens": 32, "max_num_seqs": 24, "stream_interval": 3, "disable_log_stats": False}
    with engine(checkpoint, kv_cache_memory_bytes=KV_BLOCKS * block, **options) as llm:
        yield llm


@pytest.fixture(scope="module")
def roomy(checkpoint: Path, reference: ReferenceTokenformer) -> Iterator[Any]:
    with engine(checkpoint, enable_prefix_caching=False) as llm:
        yield llm


def prompt(length: int, seed: int) -> list[int]:
    """Printable ASCII, which the tokenizer has first: vLLM repeats a prompt that ends in half a character."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(94, (length,), generator=generator).tolist()
    return ids


def params(**options: Any) -> SamplingParams:
    defaults: dict[str, Any] = {"logprobs": 0, "max_tokens": 40, "temperature": 1, "ignore_eos": True}
    return SamplingParams(**(defaults | options))


def stream(llm: Any, requests: Sequence[tuple[list[int], SamplingParams]]) -> list[list[Answer]]:
    """All requests at once, as streams; per request its choices."""
    answers: list[list[Answer]] = []
    for number, (ids, wanted) in enumerate(requests):
        wanted.output_kind = RequestOutputKind.DELTA
        llm.llm_engine.add_request(str(number), {"prompt_token_ids": ids}, wanted)
        answers.append([Answer() for _ in range(wanted.n)])
    while llm.llm_engine.has_unfinished_requests():
        for result in llm.llm_engine.step():
            for output in result.outputs:
                answer = answers[int(result.request_id)][output.index]
                assert answer.reason is None, "a choice went on after its end"
                assert output.logprobs is None or len(output.logprobs) == len(output.token_ids)
                answer.ids += output.token_ids
                answer.positions += output.logprobs or []
                answer.text += output.text
                answer.reason = output.finish_reason
                answer.steps.append(len(output.token_ids))
    return answers


def assert_aligned(model: ReferenceTokenformer, ids: list[int], answer: Answer) -> None:
    assert answer.reason
    assert len(answer.positions) == len(answer.ids) > 0
    assert all(next(iter(position)) == word for position, word in zip(answer.positions, answer.ids, strict=True))
    assert_recomputed(statistics_rows(answer.positions), model, ids, answer.ids)


def structured(**grammar: Any) -> SamplingParams:
    return params(structured_outputs=StructuredOutputsParams(**grammar), ignore_eos=False)


def preemptions(llm: Any) -> float:
    return sum(metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


MIXED: dict[str, Any] = {
    "greedy": lambda: params(temperature=0),
    "seeded": lambda: params(seed=1, logprobs=5),
    "three choices": lambda: params(n=3, seed=2),
    "stop strings": lambda: params(stop=list(ascii_letters), logprobs=1),
    "stop strings kept": lambda: params(stop=list(ascii_letters), include_stop_str_in_output=True),
    "stop ids": lambda: params(stop_token_ids=list(range(60, 90)), min_tokens=10),
    "the end may come": lambda: params(ignore_eos=False, logit_bias={END: 4}),
    "one token": lambda: params(max_tokens=1),
    "logit bias": lambda: params(logit_bias={65: 50, 66: -100}),
    "penalties": lambda: params(presence_penalty=2, frequency_penalty=2, repetition_penalty=1.5, seed=3),
    "nucleus": lambda: params(temperature=2, top_p=0.5, top_k=9, min_p=0.01),
    "allowed words": lambda: params(allowed_token_ids=[70, 71, 72], logprobs=2),
    "all logprobs": lambda: params(logprobs=-1, max_tokens=12),
    "prompt logprobs": lambda: params(prompt_logprobs=2),
    "regex": lambda: structured(regex="[a-f]{20}"),
    "choice": lambda: structured(choice=["surely not", "surely"]),
    "json": lambda: structured(json={"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}),
    "no logprobs": lambda: params(logprobs=None),
}


def test_a_crowd_of_mixed_streams(crowded: Any, reference: ReferenceTokenformer) -> None:
    """18 different streams at once, chunked and preempted, with several tokens per delta."""
    before = preemptions(crowded)
    requests = {name: (prompt(20 + 7 * i, i), make()) for i, (name, make) in enumerate(MIXED.items())}
    answers = dict(zip(requests, stream(crowded, list(requests.values())), strict=True))
    assert preemptions(crowded) > before
    for name, (ids, _) in requests.items():
        for answer in answers[name]:
            if name == "no logprobs":
                assert answer.reason
                assert answer.positions == []
            else:
                assert_aligned(reference, ids, answer)
    steps = [step for choices in answers.values() for answer in choices for step in answer.steps]
    assert max(steps) > 1
    assert len({tuple(answer.ids) for answer in answers["three choices"]}) == 3
    assert len(answers["all logprobs"][0].positions[0]) == reference.config.vocab_size
    for kept in (False, True):
        answer = answers["stop strings kept" if kept else "stop strings"][0]
        assert answer.reason == "stop"
        assert set(ascii_letters).isdisjoint(answer.text) == (not kept)
    assert 10 <= len(answers["stop ids"][0].ids) <= 40
    assert 66 not in answers["logit bias"][0].ids
    assert set(answers["allowed words"][0].ids) <= {70, 71, 72}
    assert answers["choice"][0].text in ("surely not", "surely")
    assert len(answers["regex"][0].text) == 20


def test_greedy_answers_are_the_same_in_a_crowd(crowded: Any, roomy: Any, reference: ReferenceTokenformer) -> None:
    """Preemption, chunks and concurrent requests change neither words nor values."""
    before = preemptions(crowded)
    prompts = [prompt(30 + 5 * i, i) for i in range(16)]
    wanted = [params(temperature=0, max_tokens=60) for _ in prompts]
    answers = [choices[0] for choices in stream(crowded, list(zip(prompts, wanted, strict=True)))]
    assert preemptions(crowded) > before
    for ids, answer in zip(prompts, answers, strict=True):
        alone = generate(roomy, [ids], params(temperature=0, max_tokens=60))[0].outputs[0]
        assert answer.ids == list(alone.token_ids)
        assert_aligned(reference, ids, answer)


def test_a_seed_gives_the_same_answer_however_the_prompt_is_cut(
    crowded: Any, roomy: Any, reference: ReferenceTokenformer
) -> None:
    """A seeded request with a partial prefill kills vLLM's own engine on CPU."""
    ids, others = prompt(100, 50), [prompt(60, 51), prompt(90, 52)]
    whole = generate(roomy, [ids], params(seed=9))[0].outputs[0]
    cut = stream(crowded, [(ids, params(seed=9)), *((other, params(seed=4)) for other in others)])
    assert cut[0][0].ids == list(whole.token_ids)
    assert_aligned(reference, ids, cut[0][0])
    for other, choices in zip(others, cut[1:], strict=True):
        assert_aligned(reference, other, choices[0])


def test_prompt_tokens_have_the_statistics_of_their_positions(crowded: Any, reference: ReferenceTokenformer) -> None:
    """Prompts come in chunks, several at once, beside requests that do not ask for prompt logprobs."""
    prompts = [prompt(90, 60), prompt(50, 61), prompt(70, 62)]
    wanted = [params(prompt_logprobs=0), params(prompt_logprobs=3), params()]
    outputs = generate(crowded, prompts, wanted)
    for ids, output in zip(prompts[:2], outputs[:2], strict=True):
        assert output.prompt_logprobs[0] is None
        assert_recomputed(statistics_rows(output.prompt_logprobs[1:]), reference, ids[:1], ids[1:])
    assert outputs[2].prompt_logprobs is None


def test_logprobs_of_chosen_words(roomy: Any, reference: ReferenceTokenformer) -> None:
    ids = prompt(40, 70)
    output = generate(roomy, [ids], params(logprobs=None, logprob_token_ids=[65, 66, 67], max_tokens=20))[0].outputs[0]
    assert all({65, 66, 67} <= position.keys() for position in output.logprobs)
    assert_recomputed(statistics_rows(output.logprobs), reference, ids, output.token_ids)


def test_flat_logprobs_hold_no_statistics_but_work(roomy: Any) -> None:
    """vLLM's compact container of its offline API has no place for them; the API server never asks for it."""
    output = generate(roomy, [prompt(40, 71)], params(flat_logprobs=True, logprobs=2, prompt_logprobs=1))[0]
    assert len(output.outputs[0].logprobs) == 40
    assert {len(position) for position in output.outputs[0].logprobs} <= {2, 3}
    assert min(output.outputs[0].logprobs.token_ids) >= 0


def test_the_first_logprobs_compile_nothing(checkpoint: Path, reference: ReferenceTokenformer) -> None:
    """vLLM would compile its rank count here, for up to 30 s."""
    from torch._dynamo.utils import counters

    counters.clear()
    with engine(checkpoint) as llm:
        for size in (1, 2, 5):
            generate(llm, [prompt(10, i) for i in range(size)], params(logprobs=2, prompt_logprobs=1, max_tokens=2))
    assert not counters["frames"], "torch.compile ran"


def test_accepted_drafts_have_their_own_statistics(
    checkpoint: Path, reference: ReferenceTokenformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Speculative decoding makes several tokens in one step.

    In a process of its own: it imports numba, and vLLM cannot start an engine where numba has been imported.
    """
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    speculation = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    ids = prompt(8, 80) * 5
    with engine(checkpoint, speculative_config=speculation, disable_log_stats=False) as llm:
        wanted = [params(temperature=0, max_tokens=80), params(seed=1), params(logprobs=3, prompt_logprobs=0)]
        outputs = generate(llm, [ids] * len(wanted), wanted)
        accepted = sum(m.value for m in llm.get_metrics() if m.name == "vllm:spec_decode_num_accepted_tokens")
    assert accepted > 0
    for output in outputs:
        answer = output.outputs[0]
        found = statistics_rows(answer.logprobs)
        assert_recomputed(found, reference, ids, answer.token_ids)
    assert "numba" not in sys.modules
    found = statistics_rows(outputs[2].prompt_logprobs[1:])
    assert_recomputed(found, reference, ids[:1], ids[1:])
