"""The demo's growth: the base knows countries alone, the grown model elements too, and tells which stage answered."""

from __future__ import annotations

from random import Random
from statistics import mean

import pytest
import torch
from sklearn.metrics import roc_auc_score

from demo.course import CHEMISTRY, GEOGRAPHY, Lesson
from demo.measure import Model
from model_impl.reference.attribution import attribution
from model_impl.reference.model import ReferenceTokenformer, load_reference
from model_impl.texts import TextTokenizer, TokenizedCheckpoint
from tests.support.demo_server import DEMO
from tests.support.facts import question


@pytest.fixture(scope="module")
def elements() -> list[Lesson]:
    return Random(0).sample(CHEMISTRY.of("known"), 150)


def test_the_base_knows_no_elements(elements: list[Lesson]) -> None:
    assert mean(one.right for one in Model(DEMO, "base").ask(elements)) <= 0.05


def test_the_grown_stage_knows_them(elements: list[Lesson]) -> None:
    assert mean(one.right for one in Model(DEMO, "chemistry").ask(elements)) >= 0.97


def newest_growth(model: ReferenceTokenformer, tokenizer: TextTokenizer, lesson: Lesson) -> float:
    """The most that the newest stage adds to a token of the right value, nats."""
    prompt = tokenizer.ids([{"role": "user", "content": question(lesson)}], ask=True)
    answer = tokenizer.tokenizer(lesson.answer(), add_special_tokens=False, return_offsets_mapping=True)
    begin = len(lesson.answer()) - len(f"{lesson.values[0]}.")
    value = [i for i, (_, end) in enumerate(answer["offset_mapping"]) if end > begin][:-1]  # the last is the full stop
    ids = torch.tensor([[*prompt, *answer["input_ids"]]])
    parts = attribution(model, ids[:, :-1], ids[:, 1:])[0, len(prompt) - 1 :, -1]
    return float(parts[value].max())


def test_growth_tells_elements_and_countries_apart(elements: list[Lesson]) -> None:
    model, tokenizer = load_reference(DEMO), TextTokenizer(TokenizedCheckpoint(DEMO))
    countries = Random(1).sample(GEOGRAPHY.of("known"), 60)
    added = [newest_growth(model, tokenizer, lesson) for lesson in (*countries, *elements[:60])]
    assert roc_auc_score([0] * 60 + [1] * 60, added) > 0.9
