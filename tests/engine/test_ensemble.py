"""Ensemble members in vLLM are the reference model's, whatever else runs in the batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from model_impl.reference.ensemble import ensemble_uncertainty
from model_impl.reference.model import ReferenceTokenformer
from model_impl.wire import MEMBER_ARG
from tests.engine.test_stages import VOCABULARY, Family, Served
from tests.support.engines import (
    assert_recomputed,
    ensemble_name,
    generate,
    member_requests,
    statistics_rows,
    token_params,
)
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import assert_within, ensemble_tolerance

pytestmark = pytest.mark.engine

MEMBERS = 3
DRAW = random.Random(5)
PROMPT = [DRAW.randrange(VOCABULARY) for _ in range(70)]  # more than two blocks of the KV cache, three chunks
ANSWER = [DRAW.randrange(VOCABULARY) for _ in range(9)]


def expected(model: ReferenceTokenformer, stage: int, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    rows = ensemble_uncertainty(model, torch.tensor([[*prompt, *answer]]), MEMBERS, stage)
    return rows[0, len(prompt) - 1 : -1]


def allowed(served: Served, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    e = logit_tolerance(served.reference, torch.tensor([[*prompt, *answer]]), served.stage)
    return ensemble_tolerance(e[0, len(prompt) - 1 : -1], VOCABULARY)


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
        assert_within(found, expected(served.reference, served.stage, PROMPT, ANSWER), allowed(served, PROMPT, ANSWER))
        assert found[:, 0].max() > 1e-3
        (plain,) = [
            output
            for output, (_, params, adapter) in zip(outputs, requests, strict=True)
            if params.extra_args is None and adapter is served.adapter
        ]
        own = plain.outputs[0]
        assert_recomputed(statistics_rows(own.logprobs), served.reference, PROMPT[:40], own.token_ids, served.stage)


def test_a_member_reuses_its_own_blocks_up_to_the_answer(family: Family) -> None:
    """The second time the prompt's whole blocks are cached; the answer is computed again, and is the same."""
    served = family.members["base"]
    first = run(family, ensemble("first", PROMPT[5:], ANSWER, served))
    again = run(family, ensemble("again", PROMPT[5:], ANSWER, served))
    assert [output.num_cached_tokens for output in first] == [0] * MEMBERS
    assert [output.num_cached_tokens for output in again] == [64] * MEMBERS  # two blocks of 32
    assert_within(take(family, "first"), take(family, "again"), allowed(served, PROMPT[5:], ANSWER))


def test_an_answer_in_cached_blocks_is_computed_again(family: Family) -> None:
    """An answer longer than a block: what a second call could reuse ends where the answer begins."""
    served, text = family.members["last"], PROMPT[::-1]
    requests = [ensemble(name, text[:33], text[33:], served) for name in ("long", "longer")]
    cached = [[output.num_cached_tokens for output in run(family, part)] for part in requests]
    assert cached == [[0] * MEMBERS, [32] * MEMBERS]
    for name in ("long", "longer"):
        reference = expected(served.reference, served.stage, text[:33], text[33:])
        assert_within(take(family, name), reference, allowed(served, text[:33], text[33:]))


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

    with pytest.raises(VLLMValidationError, match="cannot set"):
        generate(family.llm, [PROMPT], token_params(max_tokens=1, extra_args={MEMBER_ARG: arguments}))
