"""The engine's outputs reach the metrics, and answers are scored under the right ensemble."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

from model_impl.wire import REPORT_ARG, UNSHOWN_ARG
from server.api.request_scores import RequestScores, RunningChoice
from server.engine.statistics import ScoredLogprob
from server.requests.schemas import (
    ScoredChatCompletionRequest,
    ScoredCompletionRequest,
    UncertaintyOptions,
    with_statistics,
)
from server.uncertainty.calibration import Calibration
from server.uncertainty.reason import Population
from server.uncertainty.score import ChoiceScore, EnsembleScore
from server.uncertainty.tokens import TokenScore
from tests.unit.server.engine.test_token_reader import DEMO


class Ensemble:
    """Says that the members are as unsure as they are many."""

    def __init__(self, unavailable: str | None = None) -> None:
        self.asked: list[int] = []
        self.unavailable = unavailable

    async def score(self, answer: Any, members: int) -> EnsembleScore:
        self.asked.append(members)
        return EnsembleScore(members, [members / 10], [0.0], 1)


READS_ENSEMBLE = Calibration(
    "probe",
    "f" * 64,
    "base",
    ["max_epistemic"],
    [1.0],
    0.0,
    lowest=[0.0],
    highest=[9.0],
    ensemble={"members": 8, "rate": 0.03, "projections": ["output", "ffn"]},
)
READS_LOGITS = Calibration("probe", "f" * 64, "base", ["max_entropy"], [1.0], 0.0, lowest=[0.0], highest=[9.0])


def asked(options: UncertaintyOptions) -> Any:
    return SimpleNamespace(
        uncertainty=options,
        max_tokens=5,
        skip_special_tokens=True,
        spaces_between_special_tokens=True,
        include_stop_str_in_output=False,
        cache_salt=None,
        priority=0,
    )


def counted(name: str) -> float:
    value = REGISTRY.get_sample_value(f"tokenformer_token_{name}", {"model_name": "counted"})
    return value or 0.0


@pytest.mark.parametrize("cut_off", [False, True])
def test_the_metrics_have_every_token_once_when_an_answer_ends(cut_off: bool) -> None:
    models = SimpleNamespace(segments=lambda _: {}, calibration=lambda _: None, calibrations={})
    scores = RequestScores(asked(UncertaintyOptions()), "counted", models, None)
    before = counted("entropy_nats_count"), counted("entropy_nats_sum"), counted("variance_nats2_sum")
    for step in range(3):
        entry = ScoredLogprob(-0.1, 1, "w", entropy=0.5, variance=0.25, margin=0.8)
        ended = "length" if step == 2 and not cut_off else None
        output = CompletionOutput(0, "w", [2], None, [{2: entry}], finish_reason=ended)
        scores.add(RequestOutput("r", None, [1], None, [output], finished=ended is not None))
    for _ in range(2):
        scores.close()
    after = counted("entropy_nats_count"), counted("entropy_nats_sum"), counted("variance_nats2_sum")
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 1.5, 0.75]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (0, 0, 3), (0, 2, 1)])
def test_statistics_may_come_after_their_tokens(sizes: tuple[int, ...]) -> None:
    """Which token is which is seen in where the first word begins, and in the stop token, which makes no text."""
    ids = [*DEMO(" Hello")["input_ids"], DEMO.eos_token_id]
    assert len(ids) == 3
    models = SimpleNamespace(segments=lambda _: {}, calibration=lambda _: None, calibrations={})
    scores = RequestScores(asked(UncertaintyOptions(spans=True)), "m", models, DEMO, generated=False)
    entries = iter([ScoredLogprob(-0.1, 1, None, entropy=number, variance=0.25, margin=0.8) for number in (3, 1, 2)])
    for i, (token_id, size) in enumerate(zip(ids, sizes, strict=True)):
        new, ended = list(islice(entries, size)), "stop" if i == 2 else None
        output = CompletionOutput(0, "", [token_id], None, new, finish_reason=ended)
        scores.add(RequestOutput("r", None, [1], None, [output], finished=ended is not None))
    found = scores.choices[0].score.scores
    assert [token.entropy for token in found] == [3, 1, 2]
    assert "".join(token.text for token in found) == " Hello" and found[-1].text == ""
    assert found[-1].special
    assert scores.summary(0).tokens == 3


def test_logprobs_that_only_the_statistics_need_are_not_shown() -> None:
    def unshown(**fields: Any) -> Any:
        request = ScoredCompletionRequest(model="m", prompt="a", **fields)
        params = SamplingParams(logprobs=request.logprobs)
        asked = with_statistics(params, request).extra_args or {}
        assert asked.get(REPORT_ARG) is (None if request.uncertainty is False else True)
        return asked.get(UNSHOWN_ARG)

    assert unshown() is True
    assert unshown(logprobs=0) is False
    assert unshown(uncertainty={"tokens": True}) is False
    assert unshown(uncertainty=False) is None


def summary(ensemble: Ensemble, calibration: Calibration | None, wanted: int | None) -> Any:
    request = asked(UncertaintyOptions(ensemble=wanted))
    scores = RequestScores(request, "m", SimpleNamespace(ensemble=ensemble, calibrations={}), None, generated=False)
    scores.calibration = calibration
    reader: Any = None
    score = ChoiceScore.of([TokenScore(-0.1, 0.4, 0.7, 0.8, "w")])
    scores.choices[0] = RunningChoice(reader, [1], None, score, token_ids=[2])
    asyncio.run(scores.rescore_all())
    return scores.summary(0)


@pytest.mark.parametrize(
    ("calibration", "wanted", "asked", "shown"),
    [
        (None, None, [], None),
        (None, 4, [4], 4),
        (READS_LOGITS, None, [], None),
        (READS_ENSEMBLE, None, [8], 8),
        (READS_ENSEMBLE, 8, [8], 8),
        (READS_ENSEMBLE, 4, [4, 8], 4),
    ],
)
def test_an_ensemble_is_asked_where_the_request_or_the_calibration_wants_it(
    calibration: Calibration | None, wanted: int | None, asked: list[int], shown: int | None
) -> None:
    """The risk is that of the number of members that the calibration was fitted for, whatever the request asks."""
    ensemble = Ensemble()
    found = summary(ensemble, calibration, wanted)
    assert ensemble.asked == asked
    assert found.ensemble == shown
    assert found.max_epistemic == (shown and shown / 10)
    if calibration is READS_ENSEMBLE:
        assert found.risk == pytest.approx(calibration.risk({"max_epistemic": 0.8}))


def test_an_engine_without_an_ensemble_gives_no_risk_where_it_needs_one() -> None:
    found = summary(Ensemble("compiled"), READS_ENSEMBLE, None)
    assert (found.risk, found.calibrated, found.ensemble) == (None, False, None)
    assert found.reason == "feature_missing"
    assert summary(Ensemble("compiled"), READS_LOGITS, None).calibrated


POPULATION: Population = {
    "forms": {"chat": 90},
    "finish_reasons": {"stop": 89, "length": 1},
    "units": {"answer": 90},
}
CHATS = replace(READS_LOGITS, population=POPULATION)
ENTRY = ScoredLogprob(-0.1, 1, "w", entropy=0.5, variance=0.25, margin=0.8)


def reason(
    calibration: Calibration | None,
    request: Any,
    entries: list[Any],
    ended: str = "stop",
    message: dict[str, Any] | None = None,
    others: bool = False,
    generated: bool = True,
) -> str | None:
    """Why the answer of these tokens has no risk."""
    calibrations = {5: READS_LOGITS} if others else {}
    models = SimpleNamespace(segments=lambda _: {}, calibration=lambda _: calibration, calibrations=calibrations)
    scores = RequestScores(request, "reasons", models, None, generated=generated)
    positions = [{2: entry} for entry in entries]
    output = CompletionOutput(0, "w" * len(entries), [2] * len(entries), None, positions, finish_reason=ended)
    scores.add(RequestOutput("r", None, [1], None, [output], finished=True))
    scores.note_message(0, message or {"content": "w"})
    found = scores.summary(0)
    assert (found.risk is None) == (found.reason is not None) == (not found.calibrated)
    return found.reason


CHAT = ScoredChatCompletionRequest(model="m", messages=[{"role": "user", "content": "a"}])
COMPLETION = ScoredCompletionRequest(model="m", prompt="a")
IN_JSON = ScoredChatCompletionRequest(
    model="m", messages=[{"role": "user", "content": "a"}], response_format={"type": "json_object"}
)
CALL = {"content": " ", "tool_calls": [{"function": {"name": "look"}}]}
BROKEN = Logprob(math.nan)


@pytest.mark.parametrize(
    ("expected", "calibration", "request_", "entries", "more"),
    [
        (None, CHATS, CHAT, [ENTRY], {}),
        (None, READS_LOGITS, COMPLETION, [ENTRY], {"ended": "length"}),
        ("no_calibration", None, CHAT, [ENTRY], {}),
        ("other_stage", None, CHAT, [ENTRY], {"others": True}),
        ("empty", CHATS, CHAT, [], {"ended": "length"}),
        ("not_finite", CHATS, CHAT, [ENTRY, BROKEN], {}),
        ("not_finite", CHATS, CHAT, [BROKEN], {}),
        ("tool_calls", CHATS, CHAT, [ENTRY], {"message": CALL}),
        ("tool_calls", READS_LOGITS, CHAT, [ENTRY], {"message": CALL}),
        (None, CHATS, CHAT, [ENTRY], {"message": CALL | {"content": "I look:"}}),
        ("constrained", READS_LOGITS, IN_JSON, [ENTRY], {}),
        (None, CHATS, IN_JSON, [ENTRY], {"generated": False}),
        ("other_form", CHATS, COMPLETION, [ENTRY], {}),
        ("other_form", CHATS, COMPLETION, [ENTRY], {"generated": False}),
        ("truncated", CHATS, CHAT, [ENTRY], {"ended": "length"}),
        (None, CHATS, CHAT, [ENTRY], {"ended": "length", "generated": False}),
        ("feature_missing", READS_ENSEMBLE, CHAT, [ENTRY], {}),
    ],
)
def test_an_answer_without_a_risk_says_why(
    expected: str | None, calibration: Calibration | None, request_: Any, entries: list[Any], more: dict[str, Any]
) -> None:
    assert reason(calibration, request_, entries, **more) == expected


def test_a_streamed_tool_call_has_no_risk_either() -> None:
    request = ScoredChatCompletionRequest.model_construct(**dict(CHAT) | {"tools": [{"type": "function"}]})
    models = SimpleNamespace(segments=lambda _: {}, calibration=lambda _: CHATS, ensemble=Ensemble())
    scores = RequestScores(request, "reasons", models, None)
    output = CompletionOutput(0, "w", [2], None, [{2: ENTRY}], finish_reason="stop")
    scores.add(RequestOutput("r", None, [1], None, [output], finished=True))
    frames = [{"delta": {"content": " "}}, {"delta": {"tool_calls": CALL["tool_calls"]}}, {"finish_reason": "stop"}]
    for frame in frames:
        chunk = f"data: {json.dumps({'choices': [{'index': 0, 'delta': {}} | frame]})}\n\n"
        told = json.loads(asyncio.run(scores.complete(chunk)).removeprefix("data: "))
    (last,) = told["choices"]
    assert (last["uncertainty"]["risk"], last["uncertainty"]["reason"]) == (None, "tool_calls")
