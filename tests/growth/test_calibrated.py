"""`tokenformer calibrate`, and a server that uses what it wrote: one stage calibrated, the other not."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from model_impl.reference import ReferenceTokenformer
from server.calibration import Calibration, load_calibration
from tests import calibrated
from tests.calibrated import features, labels, words
from tests.growth.test_server import VOCABULARY
from tests.servers import Server, command_line, serving, user_environment

pytestmark = pytest.mark.server


@dataclass(frozen=True)
class Calibrated:
    server: Server
    reference: ReferenceTokenformer
    calibration: Calibration
    said: str
    """By `tokenformer calibrate`."""

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.server.url}/v1", api_key="none", max_retries=0, timeout=60)

    def metric(self, name: str, model: str) -> float:
        lines = httpx.get(f"{self.server.url}/metrics").text.splitlines()
        values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(f'{name}{{model_name="{model}"}}')]
        return float(values[0]) if values else 0.0


@pytest.fixture(scope="module")
def m(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calibrated]:
    """Stage base is calibrated; the file beside the weights for the last stage belongs to other weights."""
    root = tmp_path_factory.mktemp("calibrated")
    reference = calibrated.checkpoint(root / "m")
    data = root / "labels.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in labels(reference, 0, 120)))
    command = command_line("calibrate", root / "m", "--data", data, "--stage", "base", "--abstain", "0.05")
    run = subprocess.run(command, capture_output=True, text=True, env=user_environment(), timeout=300)
    assert run.returncode == 0, run.stderr
    calibration = load_calibration(root / "m" / "calibration-base.json")
    foreign = calibration.to_dict() | {"stage": "grown-1", "checkpoint": "0" * 64}
    (root / "m" / "calibration.json").write_text(json.dumps(foreign))
    (root / "m" / "calibration-broken.json").write_text("{")
    flags = ["--served-model-name", "m", "--kv-cache-memory-bytes", 64 << 20]
    with serving(root / "m", root / "log", flags) as server:
        server.wait_until_ready()
        yield Calibrated(server, reference, calibration, run.stdout)


PROMPT = [random.Random(6).randrange(VOCABULARY) for _ in range(12)]


def ask(m: Calibrated, model: str, **options: Any) -> Any:
    extra = {"return_token_ids": True, "ignore_eos": True, "uncertainty": options.pop("uncertainty", True)}
    defaults: dict[str, Any] = {"prompt": PROMPT, "temperature": 0, "max_tokens": 11}
    return m.client.completions.create(model=model, extra_body=extra, **(defaults | options))


def test_the_command_reports_and_writes(m: Calibrated) -> None:
    figures = m.calibration.figures
    assert f"{m.calibration.name}, on held-out answers AUROC {figures['auroc']['value']:.3f}" in m.said
    # Likeliest answers against random ones: easy, unless the scoring looks at the wrong tokens.
    assert figures["auroc"]["value"] > 0.9
    assert m.calibration.data["labels"] == 120
    assert m.calibration.data["wrong"] == 60
    assert m.calibration.abstain is not None
    assert m.calibration.abstain["error_rate"] == 0.05


def test_risk_is_the_calibration_of_the_references_features(m: Calibrated) -> None:
    choices = ask(m, "m:base", temperature=2, seed=1, n=3).choices
    for choice in choices:
        wanted = m.calibration.risk(features(m.reference, 0, PROMPT, choice.token_ids))
        assert choice.uncertainty["risk"] == pytest.approx(wanted, abs=1e-3)
        assert choice.uncertainty["calibrated"] is True
        assert choice.uncertainty["calibration"] == m.calibration.name
        assert choice.uncertainty["abstain"] is None
    assert len({choice.uncertainty["risk"] for choice in choices}) == 3


def test_a_stream_says_the_same(m: Calibrated) -> None:
    plain = ask(m, "m:base", uncertainty={"abstain_above": 0.5}).choices[0]
    chunks = list(ask(m, "m:base", uncertainty={"abstain_above": 0.5}, stream=True))
    summaries = [
        choice.uncertainty for chunk in chunks for choice in chunk.choices if getattr(choice, "uncertainty", None)
    ]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == plain.text
    assert len(summaries) == 1
    assert list(summaries[0]) == list(plain.uncertainty)
    for name, value in plain.uncertainty.items():
        same = pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value
        assert summaries[0][name] == same
    chat = {"messages": [{"role": "user", "content": "w1 w2"}], "temperature": 0, "max_tokens": 5}
    answer = m.client.chat.completions.create(model="m:base", **chat)  # type: ignore[call-overload]
    last = [c for c in m.client.chat.completions.create(model="m:base", stream=True, **chat) if c.choices][-1]  # type: ignore[call-overload]
    assert answer.choices[0].uncertainty["calibration"] == m.calibration.name
    assert last.choices[0].uncertainty["risk"] == pytest.approx(answer.choices[0].uncertainty["risk"], abs=1e-3)


def test_the_words_to_doubt_have_a_risk(m: Calibrated) -> None:
    """Of their own tokens, and at most the answer's."""
    choice = ask(m, "m:base", temperature=2, seed=2, uncertainty={"spans": True}).choices[0]
    summary = choice.uncertainty
    assert summary["spans"]
    for span in summary["spans"]:
        assert choice.text[span["start"] : span["end"]] == span["text"]
        assert 0 <= span["risk"] <= summary["risk"]
    assert (
        summary["spans"]
        == ask(m, "m:base", temperature=2, seed=2, uncertainty={"spans": True}).choices[0].uncertainty["spans"]
    )
    assert all(
        span["risk"] is None for span in ask(m, "m", uncertainty={"spans": True}).choices[0].uncertainty["spans"]
    )
    given = {"model": "m:base", "prompt": words(PROMPT), "completion": "w5 w9 w11", "uncertainty": {"spans": True}}
    (scored,) = httpx.post(f"{m.server.url}/v1/uncertainty", json=given, timeout=60).json()["choices"]
    places = [(span["start"], span["end"], span["text"]) for span in scored["uncertainty"]["spans"]]
    assert places == [(0, 2, "w5"), (3, 5, "w9"), (6, 9, "w11")], "random words, which the model does not expect"


def test_abstain_marks_and_changes_nothing(m: Calibrated) -> None:
    plain = ask(m, "m:base").choices[0]
    risk = plain.uncertainty["risk"]
    assert 0 < risk < 1
    for limit, marked in ((risk / 2, True), ((1 + risk) / 2, False), (0, True), (1, False)):
        choice = ask(m, "m:base", uncertainty={"abstain_above": limit}).choices[0]
        assert choice.uncertainty["abstain"] is marked
        assert choice.text == plain.text


@pytest.mark.parametrize("limit", [1.5, -0.1, True, "high", None, [0.5]])
def test_a_wrong_limit_is_refused(m: Calibrated, limit: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(m, "m:base", uncertainty={"abstain_above": limit})
    assert caught.value.param == "uncertainty"
    assert "`uncertainty.abstain_above` must be a number from 0 to 1" in str(caught.value)


def test_a_calibration_of_other_weights_or_a_broken_one_is_refused_and_said_so(m: Calibrated) -> None:
    log = m.server.log.read_text()
    assert re.search(r"warning: \S*/calibration\.json was made for another checkpoint or stage; it is not used", log)
    assert re.search(r"warning: \S*/calibration-broken\.json: not JSON: .*; it is not used", log)
    assert re.search(r"stage base is calibrated by \S*/calibration-base\.json", log)
    uncertainty = ask(m, "m", uncertainty={"abstain_above": 0.5}).choices[0].uncertainty
    assert uncertainty["tokens"] == 11
    assert [uncertainty[name] for name in ("risk", "calibrated", "calibration", "abstain")] == [None, False, None, None]


def test_models_are_listed_with_their_calibration(m: Calibrated) -> None:
    cards = {card.id: card.calibration for card in m.client.models.list().data}
    assert cards == {"m": None, "m:base": {"name": m.calibration.name, "abstain": m.calibration.abstain}}


def test_metrics_count_risks_and_flagged_answers(m: Calibrated) -> None:
    answers, flagged = "tokenformer_answer_risk_count", "tokenformer_flagged_answers_total"
    before = m.metric(answers, "m:base"), m.metric(flagged, "m:base")
    ask(m, "m:base", uncertainty={"abstain_above": 0}, n=2, temperature=1)
    list(ask(m, "m:base", uncertainty={"abstain_above": 1}, stream=True))
    ask(m, "m:base", uncertainty=False)
    assert (m.metric(answers, "m:base"), m.metric(flagged, "m:base")) == (before[0] + 3, before[1] + 2)
    # Without a limit of the request's own, the calibration's counts: a text at random is certainly above it.
    assert m.calibration.abstain is not None
    risky = ask(m, "m:base", temperature=2, seed=2).choices[0].uncertainty["risk"]
    assert risky > m.calibration.abstain["above"]
    assert m.metric(flagged, "m:base") == before[1] + 3
    ask(m, "m")
    assert m.metric(answers, "m") == 0
