"""The statistics columns of generated tokens, on their way from the engine into the positions' logprobs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.outputs import LogprobsLists

from model_impl.wire import EPISTEMIC_ID, GROWTH_ID, STATISTICS_ID, UNSHOWN_ARG
from server.engine.statistics import ScoredLogprob, StatisticsProcessor, name_growth, scored
from tests.unit.server.engine.test_token_reader import DEMO

COLUMNS = [*[STATISTICS_ID] * 3, EPISTEMIC_ID, *[GROWTH_ID] * 2]
VALUES = [1.5, 2.5, 0.25, 0.125, 7.0, -8.0]
WORDS = DEMO("Hello there")["input_ids"]


def processor(unshown: bool, logprobs: int = 0) -> StatisticsProcessor:
    params = SamplingParams(logprobs=logprobs, extra_args={UNSHOWN_ARG: unshown})
    request: Any = SimpleNamespace(sampling_params=params)
    made = StatisticsProcessor.from_new_request(DEMO, request)
    assert isinstance(made, StatisticsProcessor)
    return made


def step(words: list[int], alternatives: int = 0, columns: list[int] = COLUMNS, values: list[float] = VALUES) -> Any:
    """As the engine delivers a step: a row for each word, as wide as the most demanding request of the batch wants."""
    ids = [[word, *range(300, 300 + alternatives), *columns] for word in words]
    numbers = [[-0.5 - i, *[-3.0] * alternatives, *values[: len(columns)]] for i in range(len(words))]
    return LogprobsLists(np.array(ids), np.array(numbers, np.float32), np.arange(1, len(words) + 1))


def chosen(made: StatisticsProcessor) -> Any:
    """The first position's entry for the token that was chosen."""
    assert made.logprobs is not None
    position: Any = next(iter(made.logprobs))
    return next(iter(position.values())) if isinstance(position, dict) else position


@pytest.mark.parametrize("alternatives", [0, 3])
@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS[:4], COLUMNS[:3]])
def test_what_nobody_sees_has_the_same_statistics(alternatives: int, columns: list[int]) -> None:
    shown, unshown = processor(False), processor(True)
    for words in ([WORDS[0]], WORDS[1:]):  # several in one step, as with drafts
        for made in (shown, unshown):
            made._update_sample_logprobs(step(words, alternatives, columns))
    assert shown.logprobs is not None and unshown.logprobs is not None
    for entry, other in zip(unshown.logprobs, shown.logprobs, strict=True):
        assert isinstance(entry, ScoredLogprob) and scored(entry) is entry
        assert vars(entry) == {**vars(scored(other)), "decoded_token": None}
        assert (entry.entropy, entry.variance, entry.margin) == (1.5, 2.5, 0.25)
        assert entry.epistemic == (0.125 if len(columns) > 3 else None)
        assert entry.places == ([7.0, -8.0] if len(columns) > 4 else None)
    assert unshown.cumulative_logprob == shown.cumulative_logprob == -0.5 - sum(0.5 + i for i in range(len(WORDS) - 1))


def test_what_is_shown_has_its_text_and_its_alternatives() -> None:
    made = processor(False, logprobs=2)
    made._update_sample_logprobs(step(WORDS[:1], alternatives=2))
    assert made.logprobs is not None
    (position,) = made.logprobs
    assert list(position) == [WORDS[0], 300, 301]
    assert position[WORDS[0]].decoded_token == DEMO.decode(WORDS[:1])
    assert [isinstance(entry, ScoredLogprob) for entry in position.values()] == [True, False, False]


@pytest.mark.parametrize("unshown", [False, True])
@pytest.mark.parametrize(
    ("stages", "growth"),
    [({0: "base", 1: "new"}, {"base": 7.0, "new": -8.0}), ({0: "base"}, {"base": 7.0}), ({}, None)],
)
def test_growth_is_by_the_stages_of_the_model(
    unshown: bool, stages: dict[int, str], growth: dict[str, float] | None
) -> None:
    made = processor(unshown)
    made._update_sample_logprobs(step(WORDS, alternatives=2))
    positions = list(made.logprobs or ())
    name_growth([None, *positions], stages)
    entries = [scored(position) for position in positions]
    assert [entry and entry.growth for entry in entries] == [growth] * len(WORDS)


@pytest.mark.parametrize("unshown", [False, True])
@pytest.mark.parametrize("broken", range(len(VALUES)))
def test_logits_that_overflowed_have_no_statistics(unshown: bool, broken: int) -> None:
    made = processor(unshown)
    made._update_sample_logprobs(step(WORDS[:1], values=[*VALUES[:broken], math.nan, *VALUES[broken + 1 :]]))
    assert scored(chosen(made)) is None
    assert chosen(made).logprob == -0.5


@pytest.mark.parametrize("unshown", [False, True])
def test_an_engine_that_reports_none(unshown: bool) -> None:
    made = processor(unshown)
    made._update_sample_logprobs(step(WORDS[:1], columns=[]))
    assert scored(chosen(made)) is None
    assert chosen(made).logprob == -0.5


def test_a_stream_gets_whatever_statistics_have_come() -> None:
    """vLLM asks for as many as there are new tokens, of which the engine may have sent more, fewer or none."""
    made: Any = processor(unshown=True)
    assert made.logprobs  # or vLLM would take the whole of it for the newest
    assert made.logprobs[-1:] == []
    made._update_sample_logprobs(step(WORDS))
    assert [entry.rank for entry in made.logprobs[-1:]] == list(range(1, len(WORDS) + 1))
    made._update_sample_logprobs(step(WORDS[:1]))
    assert len(made.logprobs[:0]) == 1
    assert made.logprobs[-1:] == []
    assert len(list(made.logprobs)) == len(WORDS) + 1
