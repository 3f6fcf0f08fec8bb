"""The demo checkpoint's calibrations belong to it, and tell the facts that it knows from others."""

from __future__ import annotations

from random import Random
from statistics import median
from typing import Any

import pytest
from openai import OpenAI

from demo.course import CHEMISTRY, Course, Kind, Lesson
from demo.manners import small_talk
from demo.measure import COURSES
from model_impl.checkpoint.fingerprint import fingerprint
from server.uncertainty.calibration import find_calibrations, load_calibration
from tests.support.demo_server import DEMO
from tests.support.facts import question

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

CALIBRATIONS = {calibration.stage: calibration for calibration in map(load_calibration, find_calibrations(DEMO))}
MODELS = {"base": "demo:base", "chemistry": "demo"}
FILES = {"base": "calibration-base.md", "chemistry": "calibration.md"}
TAUGHT = [(stage, course) for stage, courses in COURSES.items() for course in courses]


def answered(client: OpenAI, stage: str, message: str) -> tuple[str, float]:
    """The answer, and its risk."""
    answer = client.chat.completions.create(
        model=MODELS[stage], messages=[{"role": "user", "content": message}], temperature=0, max_tokens=48
    )
    found: dict[str, Any] = answer.choices[0].uncertainty  # type: ignore[attr-defined]
    assert found["calibrated"] is True
    assert found["calibration"] == CALIBRATIONS[stage].name
    return str(answer.choices[0].message.content), found["risk"]


def risks(client: OpenAI, stage: str, course: Course, kind: Kind) -> list[float]:
    lessons: list[Lesson] = Random(kind).sample(course.of(kind), 12)
    return [answered(client, stage, question(lesson))[1] for lesson in lessons]


def test_every_stage_has_one_that_was_made_for_it() -> None:
    assert list(CALIBRATIONS) == ["base", "chemistry"]
    assert [calibration.checkpoint for calibration in CALIBRATIONS.values()] == [
        fingerprint(DEMO, 0),
        fingerprint(DEMO, 1),
    ]


@pytest.mark.parametrize("stage", MODELS)
def test_its_figures_are_those_that_the_model_card_promises(stage: str) -> None:
    figures = CALIBRATIONS[stage].figures
    assert figures["auroc"]["value"] >= 0.95
    assert figures["ece"]["value"] <= 0.03
    assert all(found["added"]["auroc"]["low"] > 0 for found in figures["baselines"].values())
    report = (DEMO / FILES[stage]).read_text()
    assert report.startswith(f"# Calibration {CALIBRATIONS[stage].name}\n")
    for part in report.split("](")[1:]:
        assert (DEMO / part.split(")")[0]).read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(("stage", "course"), TAUGHT, ids=[f"{stage}-{course.name}" for stage, course in TAUGHT])
def test_known_facts_have_a_low_risk_and_others_a_high_one(client: OpenAI, stage: str, course: Course) -> None:
    assert median(risks(client, stage, course, "known")) < 0.05
    assert median(risks(client, stage, course, "left_out")) > 0.7
    assert median(risks(client, stage, course, "invented")) > 0.7


def test_elements_are_known_to_the_grown_stage_only(client: OpenAI) -> None:
    lessons = Random(1).sample([lesson for lesson in CHEMISTRY.of("known") if lesson.asked], 12)
    assert all(answered(client, "base", question(lesson))[0] != lesson.answer() for lesson in lessons)
    found = [answered(client, "chemistry", question(lesson)) for lesson in lessons]
    assert (
        sum(text == lesson.answer() and risk < 0.5 for (text, risk), lesson in zip(found, lessons, strict=True)) >= 10
    )


@pytest.mark.parametrize("stage", MODELS)
def test_small_talk_is_not_doubted(client: OpenAI, stage: str) -> None:
    assert max(answered(client, stage, message)[1] for message, _ in small_talk(stage)) < 0.3


def test_models_list_it(client: OpenAI) -> None:
    cards = {card.id: card.calibration for card in client.models.list().data}  # type: ignore[attr-defined]
    for stage, model in MODELS.items():
        assert cards[model] == {"name": CALIBRATIONS[stage].name, "abstain": CALIBRATIONS[stage].abstain}
        assert cards[model]["abstain"]["error_rate"] == 0.05
