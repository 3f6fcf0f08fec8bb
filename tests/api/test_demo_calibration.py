"""The demo checkpoint's calibrations belong to it, and tell the people that it knows from others."""

from __future__ import annotations

from random import Random
from statistics import median
from typing import Any

import pytest
from openai import OpenAI

from evals.world.evaluate import draw_question
from evals.world.people import WORLD_A, WORLD_B, Fact, Kind, World
from evals.world.phrases import SMALL_TALK
from model_impl.checkpoint.fingerprint import fingerprint
from server.uncertainty.calibration import find_calibrations, load_calibration
from tests.support.demo_server import DEMO

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

CALIBRATIONS = {calibration.stage: calibration for calibration in map(load_calibration, find_calibrations(DEMO))}
MODELS = {"base": "demo:base", "world-b": "demo"}


def summary(client: OpenAI, stage: str, message: str) -> dict[str, Any]:
    answer = client.chat.completions.create(
        model=MODELS[stage], messages=[{"role": "user", "content": message}], temperature=0, max_tokens=32
    )
    found: dict[str, Any] = answer.choices[0].uncertainty  # type: ignore[attr-defined]
    assert found["calibrated"] is True
    assert found["calibration"] == CALIBRATIONS[stage].name
    return found


def risks(client: OpenAI, stage: str, world: World, kind: Kind) -> list[float]:
    facts: list[Fact] = Random(kind).sample(world.facts_of(kind), 12)
    return [summary(client, stage, draw_question(fact).text)["risk"] for fact in facts]


def test_every_stage_has_one_that_was_made_for_it() -> None:
    assert list(CALIBRATIONS) == ["base", "world-b"]
    assert [calibration.checkpoint for calibration in CALIBRATIONS.values()] == [
        fingerprint(DEMO, 0),
        fingerprint(DEMO, 1),
    ]


@pytest.mark.parametrize("stage", MODELS)
def test_its_figures_are_those_that_the_model_card_promises(stage: str) -> None:
    figures = CALIBRATIONS[stage].figures
    assert figures["auroc"]["value"] >= 0.975
    assert figures["ece"]["value"] <= 0.02
    assert all(found["added"]["auroc"]["low"] > 0 for found in figures["baselines"].values())
    report = (DEMO / ("calibration.md" if stage == "world-b" else "calibration-base.md")).read_text()
    assert report.startswith(f"# Calibration {CALIBRATIONS[stage].name}\n")
    for part in report.split("](")[1:]:
        assert (DEMO / part.split(")")[0]).read_bytes().startswith(b"<?xml")


def test_people_it_has_read_about_have_a_low_risk_and_others_a_high_one(client: OpenAI) -> None:
    assert median(risks(client, "base", WORLD_A, "known")) < 0.02
    assert median(risks(client, "base", WORLD_A, "unknown")) > 0.8
    assert median(risks(client, "world-b", WORLD_B, "known")) < 0.1
    assert median(risks(client, "world-b", WORLD_B, "unknown")) > 0.8


def test_people_of_the_second_world_are_known_to_the_grown_stage_only(client: OpenAI) -> None:
    facts = Random(1).sample(WORLD_B.facts_of("known"), 12)
    base, grown = ([summary(client, stage, draw_question(f).text)["risk"] for f in facts] for stage in MODELS)
    assert median(base) > 0.8
    assert median(grown) < 0.1


@pytest.mark.parametrize("stage", MODELS)
def test_small_talk_is_not_doubted(client: OpenAI, stage: str) -> None:
    assert max(summary(client, stage, messages[0])["risk"] for messages, _ in SMALL_TALK) < 0.3


def test_models_list_it(client: OpenAI) -> None:
    cards = {card.id: card.calibration for card in client.models.list().data}  # type: ignore[attr-defined]
    for stage, model in MODELS.items():
        assert cards[model] == {"name": CALIBRATIONS[stage].name, "abstain": CALIBRATIONS[stage].abstain}
        assert cards[model]["abstain"]["error_rate"] == 0.05
