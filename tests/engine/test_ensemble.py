"""Ensemble members in vLLM are the reference model's, whatever else runs in the batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from model_impl.reference.ensemble import ensemble_uncertainty
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


def limits(served: Served, prompt: Sequence[int], answer: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the reference says of the answer's tokens, and by how much the engine may differ."""
    ids = torch.tensor([[*prompt, *answer]])
    e = logit_tolerance(served.reference, ids, served.stage)[0, len(prompt) - 1 : -1]
    expected = ensemble_uncertainty(served.reference, ids, len(prompt), MEMBERS, served.stage)[0]
    return expected, ensemble_tolerance(e, VOCABULARY)


Requests = list[tuple[Any, Any, Any]]
"""Prompt, parameters and adapter of each."""


def ensemble(name: str, prompt: Sequence[int], answer: Sequence[int], served: Served, first: int = 0) -> Requests:
    return [(*request, served.adapter) for request in member_requests(name, MEMBERS, prompt, answer, first)]


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
        assert_within(found, *limits(served, PROMPT, ANSWER))
        assert found[:, 0].max() > 1e-3
        (plain,) = [
            output
            for output, (_, params, adapter) in zip(outputs, requests, strict=True)
            if params.extra_args is None and adapter is served.adapter
        ]
        own = plain.outputs[0]
        assert_recomputed(statistics_rows(own.logprobs), served.reference, PROMPT[:40], own.token_ids, served.stage)


def test_members_share_the_prompts_blocks_with_the_plain_request(family: Family) -> None:
    """With a cold cache the first member computes them, for the others and for the plain request."""
    served, text = family.members["base"], [*PROMPT[5:], *ANSWER]
    first = run(family, ensemble("first", text[:65], text[65:], served))
    plain = ({"prompt_token_ids": text}, token_params(max_tokens=6), served.adapter)
    (after,) = run(family, [plain])
    again = run(family, ensemble("again", text[:65], text[65:], served))
    assert [output.num_cached_tokens for output in [*first, after, *again]] == [0, 64, 64, 64, 64, 64, 64]
    for name in ("first", "again"):
        assert_within(take(family, name), *limits(served, text[:65], text[65:]))
    own = after.outputs[0]
    assert_recomputed(statistics_rows(own.logprobs), served.reference, text, own.token_ids, served.stage)


def test_blocks_of_the_answer_are_shared_with_nobody(family: Family) -> None:
    """The plain request has cached prompt and answer. A member that begins late in the answer computes the answer's
    first block itself, and finds it the next time; the plain request still finds its own."""
    served, text = family.members["last"], PROMPT[::-1]
    requests = [({"prompt_token_ids": text}, token_params(max_tokens=6), served.adapter)]
    (before,) = run(family, requests)
    late = ensemble("late", text[:33], text[33:], served, first=32)
    cached = [[output.num_cached_tokens for output in run(family, late)]]
    assert_within(take(family, "late"), *(part[32:] for part in limits(served, text[:33], text[33:])))
    cached += [[output.num_cached_tokens for output in run(family, late)]]
    assert_within(take(family, "late"), *(part[32:] for part in limits(served, text[:33], text[33:])))
    (after,) = run(family, requests)
    assert cached == [[32] * MEMBERS, [64] * MEMBERS]
    assert after.num_cached_tokens == 64
    for own in (before.outputs[0], after.outputs[0]):
        assert_recomputed(statistics_rows(own.logprobs), served.reference, text, own.token_ids, served.stage)


def test_an_answer_in_cached_blocks_is_computed_again(family: Family) -> None:
    """An answer longer than a block: what a second call could reuse ends where the answer begins."""
    served, text = family.members["last"], [*PROMPT[40:], *PROMPT[:40]]
    requests = [ensemble(name, text[:33], text[33:], served) for name in ("long", "longer")]
    cached = [[output.num_cached_tokens for output in run(family, part)] for part in requests]
    assert cached == [[0, *[32] * (MEMBERS - 1)], [32] * MEMBERS]
    for name in ("long", "longer"):
        assert_within(take(family, name), *limits(served, text[:33], text[33:]))


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


@pytest.mark.parametrize(
    "arguments", ["text", {"ensemble": "guessed", "member": 10**9, "size": 2, "masked_from": 0, "start": 0}]
)
def test_nobody_else_makes_a_member(family: Family, arguments: object) -> None:
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError, match="cannot set"):
        generate(family.llm, [PROMPT], token_params(max_tokens=1, extra_args={MEMBER_ARG: arguments}))
