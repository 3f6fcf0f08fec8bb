"""Ensemble members in vLLM are the reference model's, whatever else runs in the batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from model_impl.ensemble import MEMBER_ARG, ensemble_uncertainty
from model_impl.reference import ReferenceTokenformer
from tests.engine.test_stages import VOCABULARY, Family, Served
from tests.engines import (
    assert_same_statistics,
    ensemble_name,
    generate,
    member_requests,
    recomputed,
    statistics_rows,
    token_params,
)

pytestmark = pytest.mark.engine

MEMBERS = 3
DRAW = random.Random(5)
PROMPT = [DRAW.randrange(VOCABULARY) for _ in range(70)]  # more than two blocks of the KV cache, three chunks
ANSWER = [DRAW.randrange(VOCABULARY) for _ in range(9)]


def expected(model: ReferenceTokenformer, stage: int, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    rows = ensemble_uncertainty(model, torch.tensor([[*prompt, *answer]]), MEMBERS, stage)
    return rows[0, len(prompt) - 1 : -1]


Requests = list[tuple[Any, Any, Any]]
"""Prompt, parameters and adapter of each."""


def ensemble(name: str, prompt: Sequence[int], answer: Sequence[int], served: Served) -> Requests:
    return [(*request, served.adapter) for request in member_requests(name, MEMBERS, prompt, answer)]


def run(family: Family, requests: Requests) -> list[Any]:
    prompts, params, adapters = zip(*requests, strict=True)
    outputs: list[Any] = family.llm.generate(list(prompts), list(params), lora_request=list(adapters), use_tqdm=False)
    return outputs


def take(family: Family, name: str) -> torch.Tensor:
    (rows,) = family.llm.collective_rpc("take_mixture", args=(ensemble_name(name),))
    return torch.tensor(rows)


def test_every_variant_equals_its_reference_in_one_mixed_batch(family: Family) -> None:
    """Ensembles of both stages and both deltas beside plain requests: none disturbs another."""
    requests: Requests = []
    for name, served in family.members.items():
        requests += ensemble(name, PROMPT, ANSWER, served)
        plain = token_params(max_tokens=6)
        requests.append(({"prompt_token_ids": PROMPT[:40]}, plain, served.adapter))
    random.Random(0).shuffle(requests)
    outputs = run(family, requests)
    for name, served in family.members.items():
        found = take(family, name)
        torch.testing.assert_close(found, expected(served.reference, served.stage, PROMPT, ANSWER), atol=1e-4, rtol=0)
        assert found[:, 0].max() > 1e-3
        (plain,) = [
            output
            for output, (_, params, adapter) in zip(outputs, requests, strict=True)
            if params.extra_args is None and adapter is served.adapter
        ]
        own = plain.outputs[0]
        reference = recomputed_at(served, PROMPT[:40], own.token_ids)
        assert_same_statistics(statistics_rows(own.logprobs), reference)


def recomputed_at(served: Served, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    class Staged:
        def __call__(self, ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = served.reference(ids, served.stage)
            return logits

    return recomputed(Staged(), prompt, answer)  # type: ignore[arg-type]


def test_a_member_reuses_its_own_blocks_up_to_the_answer(family: Family) -> None:
    """The second time the prompt's whole blocks are cached; the answer is computed again, and is the same."""
    served = family.members["base"]
    first = run(family, ensemble("first", PROMPT[5:], ANSWER, served))
    again = run(family, ensemble("again", PROMPT[5:], ANSWER, served))
    assert [output.num_cached_tokens for output in first] == [0] * MEMBERS
    assert [output.num_cached_tokens for output in again] == [64] * MEMBERS  # two blocks of 32
    torch.testing.assert_close(take(family, "first"), take(family, "again"), atol=1e-5, rtol=0)


def test_an_answer_in_cached_blocks_is_computed_again(family: Family) -> None:
    """An answer longer than a block: what a second call could reuse ends where the answer begins."""
    served, text = family.members["last"], PROMPT[::-1]
    requests = [ensemble(name, text[:33], text[33:], served) for name in ("long", "longer")]
    cached = [[output.num_cached_tokens for output in run(family, part)] for part in requests]
    assert cached == [[0] * MEMBERS, [32] * MEMBERS]
    for name in ("long", "longer"):
        reference = expected(served.reference, served.stage, text[:33], text[33:])
        torch.testing.assert_close(take(family, name), reference, atol=1e-4, rtol=0)


def test_an_incomplete_ensemble_gives_no_numbers(family: Family) -> None:
    requests = ensemble("partial", PROMPT, ANSWER, family.members["last"])
    run(family, requests[:-1])
    with pytest.raises(Exception, match="has not scored"):
        take(family, "partial")
    assert family.llm.collective_rpc("take_mixture", args=(ensemble_name("partial"),)) == [None]


def test_a_dropped_ensemble_is_gone(family: Family) -> None:
    run(family, ensemble("dropped", PROMPT, ANSWER, family.members["last"]))
    family.llm.collective_rpc("drop_mixture", args=(ensemble_name("dropped"),))
    assert family.llm.collective_rpc("take_mixture", args=(ensemble_name("dropped"),)) == [None]
    generate(family.llm, [PROMPT], token_params(max_tokens=1))


@pytest.mark.parametrize("arguments", ["text", {"ensemble": "guessed", "member": 10**9, "size": 2, "start": 0}])
def test_nobody_else_makes_a_member(family: Family, arguments: object) -> None:
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError, match="not for clients"):
        generate(family.llm, [PROMPT], token_params(max_tokens=1, extra_args={MEMBER_ARG: arguments}))
