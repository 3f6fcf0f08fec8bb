"""The weights of requests."""

from __future__ import annotations

from typing import Any

import pytest

from server.gate.weight import COMPLETION_TOKENS, Shape, Weight, weigh

LONGEST = 100
SHAPE = Shape(LONGEST, alternatives=1000, block=32)


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        ({"prompt": "a" * 40}, Weight(1, 11)),
        ({"prompt": ["a" * 40, "b" * 4]}, Weight(2, 13)),
        ({"prompt": [1, 2, 3]}, Weight(1, 3)),
        ({"prompt": [[1, 2, 3], [4]]}, Weight(2, 4)),
        ({"prompt": "a" * 40, "n": 3}, Weight(3, 33)),
        ({"prompt": ["a" * 40, "b" * 40], "n": 3, "best_of": 5}, Weight(10, 110)),
        ({"prompt": "a" * 40_000}, Weight(1, LONGEST)),
        ({"prompt": []}, Weight(1, 0)),
        ({"prompt": "", "completion": ["aaaa", "bbbb"]}, Weight(2, 6, 6, "completion")),
        ({"messages": [{"role": "user", "content": "a" * 40}]}, Weight(1, 13)),
        ({"messages": [[{"content": "aaaa"}], [{"content": "bbbb"}]]}, Weight(2, 4)),
        ({"input": "a" * 40}, Weight(1, 11)),
        ({"prompt": "a", "completion": "b", "top_logprobs": 2}, Weight(1, 2, 2 * (3 + 1), "top_logprobs")),
        ({"n": "many"}, Weight(1, 0)),
        ({"n": None, "prompt": None}, Weight(1, 0)),
        (None, Weight(1, 0)),
        ([1, 2], Weight(1, 0)),
    ],
)
def test_a_request_weighs_its_sequences_and_tokens(body: object, weight: Weight) -> None:
    assert weigh(body, SHAPE) == weight


CHAT = {"messages": [{"role": "user", "content": "a"}]}
CHAT_TOKENS = 3
"""As they are estimated."""


@pytest.mark.parametrize(
    ("body", "cells", "param"),
    [
        (CHAT | {"n": 4}, 0, None),
        (CHAT | {"n": 4, "logprobs": True, "max_tokens": 10}, 4 * 10, "logprobs"),
        (CHAT | {"n": 4, "logprobs": True, "max_tokens": 10, "stream": True}, 0, "logprobs"),
        ({"prompt": ["aaaa"] * 3, "logprobs": 1, "echo": True, "stream": True}, 3 * 2 * 2, "logprobs"),
        (CHAT | {"n": 4, "logprobs": True, "top_logprobs": 20, "max_tokens": 10}, 4 * 10 * 22, "top_logprobs"),
        (CHAT | {"logprobs": True, "top_logprobs": 20}, LONGEST * 22, "top_logprobs"),
        (CHAT | {"logprobs": True, "max_completion_tokens": 10**9}, LONGEST, "logprobs"),
        (CHAT | {"uncertainty": {"tokens": True}, "max_tokens": 5}, 5, "uncertainty"),
        (CHAT | {"logprob_token_ids": [1, 2, 3], "max_tokens": 5}, 5 * 3, "logprob_token_ids"),
        ({"prompt": "a", "logprobs": 20}, COMPLETION_TOKENS * 21, "logprobs"),
        ({"prompt": "a", "logprobs": -1, "max_tokens": 1}, 1001, "logprobs"),
        ({"prompt": "a", "logprobs": 2**63, "max_tokens": 1}, 1, "logprobs"),
        ({"prompt": ["aaaa"] * 3, "logprobs": 1, "echo": True, "max_tokens": 0}, 3 * 2 * 2, "logprobs"),
        ({"prompt": [[5] * 50] * 2, "prompt_logprobs": 20, "max_tokens": 1}, (2 + 100) * 21, "prompt_logprobs"),
        ({"prompt": "a", "logprobs": "many", "max_tokens": "x"}, 0, None),
    ],
)
def test_what_an_answer_shows_counts_by_sequence_token_and_column(
    body: dict[str, Any], cells: int, param: str | None
) -> None:
    weight = weigh(body, SHAPE)
    assert (weight.cells, weight.shown_by) == (cells, param)


@pytest.mark.parametrize(
    ("body", "rescored"),
    [
        (CHAT | {"uncertainty": {"ensemble": 8}, "max_tokens": 10, "n": 2}, 8 * 2 * (CHAT_TOKENS + 10)),
        ({"prompt": "a" * 396, "max_tokens": 9, "uncertainty": {"ensemble": 8}}, 8 * (32 + 9)),
        ({"prompt": "a" * 396, "completion": ["aaaa"] * 3, "uncertainty": {"ensemble": 64}}, 64 * 3 * (32 + 2)),
        ({"prompt": "a" * 396, "completion": "aaaa", "uncertainty": {"ensemble": 64}}, 64 * (32 + 2)),
        (CHAT | {"uncertainty": {"ensemble": "x"}}, 0),
        (CHAT | {"uncertainty": True}, 0),
    ],
)
def test_the_members_of_an_ensemble_count(body: dict[str, Any], rescored: int) -> None:
    assert weigh(body, SHAPE).rescored == rescored
