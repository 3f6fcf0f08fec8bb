"""Answers of the demo server, and the tolerance between two ways of computing their uncertainty."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import pytest
import torch

from model_impl.reference.closed_form import epistemic
from model_impl.reference.model import ReferenceTokenformer, load_reference
from model_impl.texts import TextTokenizer
from model_impl.wire import STATISTICS
from server.served.opening import open_model
from server.uncertainty.calibration import Calibration, load_calibration
from server.uncertainty.spans import DOUBTED_RISK, undecided_spans
from server.uncertainty.tokens import TokenScore
from tests.support.demo_server import DEMO
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import (
    LEAST_REPORTED,
    REPORTED,
    Bounds,
    Moved,
    assert_statistics_within,
    assert_within,
    ensemble_tolerance,
)

STAGES = {"demo": -1, "demo:base": 0}


@cache
def reference() -> ReferenceTokenformer:
    return load_reference(DEMO)


@cache
def tokenizer() -> TextTokenizer:
    return TextTokenizer(open_model(str(DEMO)))


def value(entry: Any, name: str) -> Any:
    """A field of a token, from its JSON or from the client's object."""
    return entry[name] if isinstance(entry, Mapping) else getattr(entry, name)


def rows(content: Iterable[Any]) -> torch.Tensor:
    """float64 [tokens, 3]."""
    return torch.tensor([[value(entry, name) for name in STATISTICS] for entry in content], dtype=torch.float64)


def completion_content(logprobs: Any) -> list[dict[str, Any]]:
    """The parallel columns of a text completion as a chat has them."""
    names = (*STATISTICS, "epistemic", "growth")
    columns = (logprobs.tokens, logprobs.token_logprobs, *(getattr(logprobs, name) for name in names))
    return [dict(zip(("token", "logprob", *names), entry, strict=True)) for entry in zip(*columns, strict=True)]


@cache
def position_tolerance(prompt: tuple[int, ...], answer: tuple[int, ...], stage: int) -> torch.Tensor:
    """float64 [len(answer)]: of the logits that each token of the answer was drawn from."""
    return logit_tolerance(reference(), torch.tensor([[*prompt, *answer]]), stage)[0, len(prompt) - 1 : -1]


@dataclass(frozen=True)
class DemoAnswer:
    """The logprobs `content` of an answer, by ids; `text` is what its spans count in."""

    model: str
    prompt: Sequence[int]
    answer: Sequence[int]
    content: Sequence[Any]
    text: str

    @classmethod
    def generated(cls, response: Any, choice: Any, model: str = "demo") -> DemoAnswer:
        """The answer of a chat that was asked for ids and logprobs."""
        return cls(model, response.prompt_token_ids, choice.token_ids, choice.logprobs.content, choice.message.content)

    @classmethod
    def given(cls, choice: Mapping[str, Any], body: Mapping[str, Any], text: str) -> DemoAnswer:
        """The answer of `POST /v1/uncertainty`."""
        words = tokenizer()
        prompt = words.ids(body["messages"], ask=True) if "messages" in body else words.ids(body["prompt"])
        answer = list(words.tokenizer(text, add_special_tokens=False)["input_ids"])
        if "messages" in body:
            answer.append(words.tokenizer.eos_token_id)
        return cls(body.get("model", "demo"), prompt, answer, choice["logprobs"]["content"], text)

    @classmethod
    def completed(cls, choice: Any) -> DemoAnswer:
        """The answer of a text completion that was asked for ids and logprobs."""
        content = completion_content(choice.logprobs)
        return cls("demo", choice.prompt_token_ids, choice.token_ids, content, choice.text)

    @cached_property
    def e(self) -> torch.Tensor:
        assert len(self.answer) == len(self.content)
        return position_tolerance(tuple(self.prompt), tuple(self.answer), STAGES[self.model])

    @cached_property
    def tokens(self) -> list[TokenScore]:
        scores, start = [], 0
        for i, entry in enumerate(self.content):
            shown = value(entry, "token")
            special = shown.startswith("<|")
            statistics = (value(entry, name) for name in STATISTICS)
            # Calibrations read the closed form, which an ensemble's number stands in the place of.
            reported = self.closed_form[i] if is_of_an_ensemble(entry) else value(entry, "epistemic")
            place = "" if special else shown, start, special
            scores.append(TokenScore(value(entry, "logprob"), *statistics, *place, reported, value(entry, "growth")))
            start += 0 if special else len(shown)
        return scores

    @cached_property
    def closed_form(self) -> list[float]:
        """The closed form of each token, by the reference."""
        ids = torch.tensor([[*self.prompt, *self.answer]])
        found: list[float] = epistemic(reference(), ids, STAGES[self.model])[0, len(self.prompt) - 1 : -1].tolist()
        return found

    @cached_property
    def moved(self) -> Moved:
        return Moved(self.tokens, self.e.tolist())

    @cached_property
    def calibration(self) -> Calibration:
        return load_calibration(DEMO / ("calibration.json" if self.model == "demo" else "calibration-base.json"))

    @cached_property
    def ensemble_tolerance(self) -> torch.Tensor:
        """float64 [tokens, 2] of epistemic and aleatoric uncertainty."""
        return ensemble_tolerance(self.e, reference().config.vocab_size)

    def assert_same_tokens(self, content: Sequence[Any]) -> None:
        assert [value(entry, "token") for entry in content] == [value(entry, "token") for entry in self.content]
        assert_statistics_within(rows(content), rows(self.content), self.e)
        ours, theirs = (torch.tensor([value(t, "logprob") for t in part]).double() for part in (self.content, content))
        assert_within(theirs, ours, 2 * self.e + 1e-5 * (1 + ours.abs()))
        for entry, own in zip(content, self.content, strict=True):
            if not is_of_an_ensemble(entry):
                assert value(entry, "epistemic") == closed_form(value(own, "epistemic"))
            assert value(entry, "growth") == growth(value(own, "growth"))

    def assert_same_summary(self, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """`expected` is the summary of this answer, `found` that of the same answer computed another way."""
        assert found.keys() == expected.keys()
        bounds: dict[str, Bounds] = self.moved.features()
        for name, wanted in expected.items():
            if name == "risk" and wanted is not None:
                assert_between(found[name], self.moved.risk(self.calibration), name)
            elif name in bounds:
                assert_between(found[name], bounds[name], name)
            elif name == "spans" and wanted is not None:
                self.assert_same_spans(found[name], wanted)
            elif name == "growth":
                assert found[name] == growth(wanted)
            elif name.endswith("_epistemic") and expected["estimator"] == "closed-form":
                assert found[name] == closed_form(wanted), name
            elif name.rpartition("_")[2] in ("epistemic", "aleatoric") and wanted is not None:
                allowed = self.ensemble_tolerance[:, 0 if name.endswith("epistemic") else 1]
                if isinstance(wanted, list):
                    assert_within(torch.tensor(found[name]), torch.tensor(wanted), allowed)
                else:
                    assert found[name] == pytest.approx(wanted, abs=allowed.max().item()), name
            else:
                assert found[name] == wanted, name

    def assert_same_spans(self, found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> None:
        """Compare spans without their numbers: those in a reason are rounded, and a risk is at most the answer's."""
        assert list(map(without_numbers, found)) == list(map(without_numbers, expected))
        whole = self.moved.risk(self.calibration)
        tolerance = dict(zip(map(id, self.tokens), self.moved.e, strict=True))
        listed = {(span["start"], span["end"]): span for span in found}
        for words in undecided_spans(self.tokens, self.text):
            part = Moved(words.tokens, [tolerance[id(token)] for token in words.tokens])
            low, high = map(min, part.risk(self.calibration), whole)
            span = listed.pop((words.start, words.end), None)
            if span is None:
                assert low <= DOUBTED_RISK
            elif span["kind"] == "doubted":
                assert_between(span["risk"], (low, high), span["text"])
        assert not listed


def is_of_an_ensemble(entry: Any) -> bool:
    """Whether the token's epistemic uncertainty is that of an ensemble."""
    found = entry if isinstance(entry, Mapping) else entry.model_dump()
    return found.get("aleatoric") is not None


def closed_form(expected: float) -> Any:
    return pytest.approx(expected, rel=REPORTED, abs=LEAST_REPORTED)


def growth(expected: Mapping[str, float]) -> Any:
    return pytest.approx(expected, rel=REPORTED, abs=REPORTED)


def without_numbers(span: Mapping[str, Any]) -> dict[str, Any]:
    """A span without its numbers; those in its reason are rounded."""
    return {**span, "risk": None, "reason": re.sub(r"\d+", "N", span["reason"])}


def assert_between(found: float, bounds: Bounds, name: str) -> None:
    low, high = bounds
    rounding = math.ulp(max(abs(low), abs(high), 1.0)) * 8  # of float64 sums
    assert low - rounding <= found <= high + rounding, f"{name}: {found} is not from {low} to {high}"
