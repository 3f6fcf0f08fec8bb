"""`tokenformer calibrate`, and a server that uses what it wrote: one stage calibrated, the other not."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import httpx
import openai
import pytest

from model_impl.checkpoint.delta import split
from server.uncertainty.spans import DOUBTED_RISK
from tests.faults.lasting import wait_for
from tests.growth.served import Grown
from tests.support.calibrated import answer, words
from tests.support.grown import VOCABULARY

pytestmark = pytest.mark.server

PROMPT = [random.Random(6).randrange(VOCABULARY) for _ in range(12)]


def ask(grown: Grown, model: str, **options: Any) -> Any:
    extra = {"return_token_ids": True, "ignore_eos": True, "uncertainty": options.pop("uncertainty", True)}
    defaults: dict[str, Any] = {"prompt": PROMPT, "temperature": 0, "max_tokens": 11}
    return grown.client.completions.create(model=model, extra_body=extra, **(defaults | options))


def test_the_command_reports_and_writes(grown: Grown) -> None:
    figures = grown.calibration.figures
    assert f"{grown.calibration.name}, on held-out answers AUROC {figures['auroc']['value']:.3f}" in grown.said
    # Likeliest answers against random ones: easy, unless the scoring looks at the wrong tokens.
    assert figures["auroc"]["value"] > 0.9
    assert grown.calibration.data["labels"] == 120
    assert grown.calibration.data["wrong"] == 60
    assert grown.calibration.abstain is not None
    assert grown.calibration.abstain["error_rate"] == 0.05


def test_risk_is_the_calibration_of_the_references_features(grown: Grown) -> None:
    choices = ask(grown, "m:base", temperature=2, seed=1, n=3).choices
    for choice in choices:
        low, high = answer(grown.references["m:base"][0], 0, PROMPT, choice.token_ids).risk(grown.calibration)
        assert low <= choice.uncertainty["risk"] <= high
        assert high - low < 0.05
        assert choice.uncertainty["calibrated"] is True
        assert choice.uncertainty["calibration"] == grown.calibration.name
        assert choice.uncertainty["abstain"] is None
    assert len({choice.uncertainty["risk"] for choice in choices}) == 3


def assert_same_summary(grown: Grown, found: Any, expected: Any, prompt: list[int], ids: list[int]) -> None:
    """The summaries are those of the same answer of stage base, computed twice."""
    assert list(found) == list(expected)
    moved = answer(grown.references["m:base"][0], 0, prompt, ids)
    bounds = moved.features() | {"risk": moved.risk(grown.calibration)}
    for name, value in expected.items():
        if name in bounds:
            low, high = bounds[name]
            assert low <= found[name] <= high, name
            assert low <= value <= high, name
        elif name != "growth":
            assert found[name] == value, name


def test_a_stream_says_the_same(grown: Grown) -> None:
    plain = ask(grown, "m:base", uncertainty={"abstain_above": 0.5}).choices[0]
    chunks = list(ask(grown, "m:base", uncertainty={"abstain_above": 0.5}, stream=True))
    summaries = [
        choice.uncertainty for chunk in chunks for choice in chunk.choices if getattr(choice, "uncertainty", None)
    ]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == plain.text
    assert len(summaries) == 1
    assert_same_summary(grown, summaries[0], plain.uncertainty, PROMPT, plain.token_ids)


def test_the_calibration_holds_for_the_answers_and_the_stage_that_it_was_fitted_on(grown: Grown) -> None:
    assert grown.calibration.population == {
        "forms": {"completion": 120},
        "finish_reasons": {"length": 120},
        "units": {"answer": 120},
    }
    assert "by form of the answer: completion 120; by its finish reason: length 120; by what" in grown.report
    for model, reason in (("m:base", None), ("m", "other_stage"), ("extra", None)):
        summary = ask(grown, model).choices[0].uncertainty
        assert (summary["reason"], summary["risk"] is None) == (reason, reason is not None)
    chat = {"messages": [{"role": "user", "content": "w1 w2"}], "temperature": 0, "max_tokens": 5}
    answer = grown.client.chat.completions.create(model="m:base", **chat)  # type: ignore[call-overload]
    assert (answer.choices[0].uncertainty["reason"], answer.choices[0].uncertainty["risk"]) == ("other_form", None)


def test_the_words_to_doubt_have_a_risk(grown: Grown) -> None:
    """The risk is that of their own tokens, and at most the answer's."""
    choice = ask(grown, "m:base", temperature=2, seed=2, uncertainty={"spans": True}).choices[0]
    summary = choice.uncertainty
    assert summary["spans"]
    for span in summary["spans"]:
        assert choice.text[span["start"] : span["end"]] == span["text"]
        assert (span["kind"], DOUBTED_RISK < span["risk"] <= summary["risk"]) == ("doubted", True)
    again = ask(grown, "m:base", temperature=2, seed=2, uncertainty={"spans": True}).choices[0]
    places = [[(span["start"], span["end"]) for span in one.uncertainty["spans"]] for one in (choice, again)]
    assert places[0] == places[1]
    given = {"model": "m", "prompt": words(PROMPT), "completion": "w5 w9 w11", "uncertainty": {"spans": True}}
    (scored,) = httpx.post(f"{grown.server.url}/v1/uncertainty", json=given, timeout=60).json()["choices"]
    places = [(span["start"], span["end"], span["text"]) for span in scored["uncertainty"]["spans"]]
    assert places == [(0, 2, "w5"), (3, 5, "w9"), (6, 9, "w11")], "random words, which the model does not expect"
    assert {(span["kind"], span["risk"]) for span in scored["uncertainty"]["spans"]} == {("undecided", None)}


def test_abstain_marks_and_changes_nothing(grown: Grown) -> None:
    plain = ask(grown, "m:base").choices[0]
    risk = plain.uncertainty["risk"]
    assert 0 < risk < 1
    for limit, marked in ((risk / 2, True), ((1 + risk) / 2, False), (0, True), (1, False)):
        choice = ask(grown, "m:base", uncertainty={"abstain_above": limit}).choices[0]
        assert choice.uncertainty["abstain"] is marked
        assert choice.text == plain.text


@pytest.mark.parametrize("limit", [1.5, -0.1, True, "high", [0.5]])
def test_a_wrong_limit_is_refused(grown: Grown, limit: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(grown, "m:base", uncertainty={"abstain_above": limit})
    assert caught.value.param == "uncertainty.abstain_above"
    assert "Invalid value for 'uncertainty.abstain_above': should be " in str(caught.value)


def test_a_calibration_of_other_weights_or_a_broken_one_is_refused_and_said_so(grown: Grown) -> None:
    log = grown.server.log.read_text()
    assert re.search(r"warning: \S*/calibration\.json was made for another model or stage; it is not used", log)
    assert re.search(r"warning: \S*/calibration-broken\.json: not JSON .*; it is not used", log)
    assert (
        f"it serves m (stage grown-1, not calibrated), m:base (stage base, calibrated by {grown.calibration.name})"
        in log
    )
    uncertainty = ask(grown, "m", uncertainty={"abstain_above": 0.5}).choices[0].uncertainty
    assert uncertainty["tokens"] == 11
    assert [uncertainty[name] for name in ("risk", "calibrated", "calibration", "abstain")] == [None, False, None, None]


def test_models_are_listed_with_their_calibration(grown: Grown) -> None:
    cards = {card.id: card.calibration for card in grown.client.models.list().data}
    own = {"name": grown.calibration.name, "abstain": grown.calibration.abstain}
    extra = {"name": grown.calibration_of_extra.name, "abstain": grown.calibration.abstain}
    assert cards == {"m": None, "m:base": own, "extra": extra}


def test_metrics_count_risks_and_flagged_answers(grown: Grown) -> None:
    answers, flagged = "tokenformer_answer_risk_count", "tokenformer_flagged_answers_total"
    before = grown.metric(answers, "m:base"), grown.metric(flagged, "m:base")
    ask(grown, "m:base", uncertainty={"abstain_above": 0}, n=2, temperature=1)
    list(ask(grown, "m:base", uncertainty={"abstain_above": 1}, stream=True))
    ask(grown, "m:base", uncertainty=False)
    assert (grown.metric(answers, "m:base"), grown.metric(flagged, "m:base")) == (before[0] + 3, before[1] + 2)
    # Without a limit of the request's own, the calibration's counts: a text at random is certainly above it.
    assert grown.calibration.abstain is not None
    risky = ask(grown, "m:base", temperature=2, seed=2).choices[0].uncertainty["risk"]
    assert risky > grown.calibration.abstain["above"]
    assert grown.metric(flagged, "m:base") == before[1] + 3
    ask(grown, "m")
    assert grown.metric(answers, "m") == 0
    of_delta = grown.metric(answers, "extra")
    ask(grown, "extra")
    assert grown.metric(answers, "extra") == of_delta + 1


def check_extra(grown: Grown, model: str) -> None:
    """The risk is that of base and delta by the delta's calibration."""
    choice = ask(grown, model, temperature=2, seed=3).choices[0]
    low, high = answer(grown.references["extra"][0], 2, PROMPT, choice.token_ids).risk(grown.calibration_of_extra)
    assert low <= choice.uncertainty["risk"] <= high
    assert high - low < 0.05
    assert (choice.uncertainty["calibrated"], choice.uncertainty["abstain"]) == (True, None)
    assert choice.uncertainty["calibration"] == grown.calibration_of_extra.name


def test_a_delta_of_the_start_has_a_risk_by_its_own_calibration(grown: Grown) -> None:
    check_extra(grown, "extra")
    assert re.search(
        r"delta extra is calibrated by \S*/deltas/extra/calibration-grown-2\.json", grown.server.log.read_text()
    )


def load(grown: Grown, name: str, path: str, **options: Any) -> None:
    wait_for(lambda: grown.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": path} | options).is_success)


def test_a_delta_that_is_loaded_later_brings_its_calibration(grown: Grown) -> None:
    """One without is uncalibrated, also under the name of one that had one."""
    split(grown.root / "three", grown.root / "deltas" / "uncalibrated")
    load(grown, "later", "extra")
    check_extra(grown, "later")
    load(grown, "later", "uncalibrated", load_inplace=True)
    summary = ask(grown, "later").choices[0].uncertainty
    assert [summary[name] for name in ("risk", "reason", "calibrated")] == [None, "other_stage", False]
    file = grown.root / "deltas" / "extra" / "calibration-grown-2.json"
    (grown.root / "deltas" / "uncalibrated" / "calibration.json").write_bytes(file.read_bytes())
    load(grown, "later", "uncalibrated", load_inplace=True)
    check_extra(grown, "later")
    assert grown.post("/v1/unload_lora_adapter", {"lora_name": "later"}).is_success


def test_a_calibration_of_another_delta_is_refused(grown: Grown) -> None:
    directory = grown.root / "deltas" / "miscalibrated"
    split(grown.root / "three", directory)
    other = grown.calibration_of_extra.to_dict() | {"checkpoint": "0" * 64}
    (directory / "calibration.json").write_text(json.dumps(other))
    load(grown, "mistaken", "miscalibrated")
    summary = ask(grown, "mistaken").choices[0].uncertainty
    assert [summary[name] for name in ("risk", "reason", "calibrated")] == [None, "other_stage", False]
    warning = r"warning: \S*/miscalibrated/calibration\.json was made for another base or delta; it is not used"
    assert re.search(warning, grown.server.log.read_text())
    assert grown.post("/v1/unload_lora_adapter", {"lora_name": "mistaken"}).is_success
