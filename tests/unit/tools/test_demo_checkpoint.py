"""The committed demo checkpoint is complete, small, right about known facts, and unsure about others."""

from __future__ import annotations

from random import Random
from statistics import mean, median

import pytest
from transformers import AutoTokenizer, GenerationConfig

from demo.course import GEOGRAPHY, Course, Kind
from demo.manners import introduction, other_subject, random_name, small_talk
from demo.measure import COURSES, Asked, Model, separation
from demo.messages import OTHER_REPLY, SUBJECTS
from model_impl.checkpoint.reading import check_tensors, load_config, tensor_shapes
from server.uncertainty.calibration import find_calibrations
from tests.support.demo_server import DEMO

SAMPLE = 150
TAUGHT = [(stage, course) for stage, courses in COURSES.items() for course in courses]
taught = pytest.mark.parametrize(
    ("stage", "course"), TAUGHT, ids=[f"{stage}-{course.name}" for stage, course in TAUGHT]
)
stages = pytest.mark.parametrize("stage", COURSES)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {stage: Model(DEMO, stage) for stage in COURSES}


def some(model: Model, course: Course, kind: Kind, held_out: bool = False, asked: bool | None = None) -> list[Asked]:
    """The answers about random lessons of a kind."""
    lessons = [lesson for lesson in course.of(kind) if asked in (None, lesson.asked)]
    return model.ask(Random(0).sample(lessons, min(SAMPLE, len(lessons))), held_out)


def test_the_directory_is_complete_small_and_consistent() -> None:
    assert (DEMO / "model.safetensors").stat().st_size <= 10_000_000
    config, tokenizer = load_config(DEMO), AutoTokenizer.from_pretrained(DEMO)
    check_tensors(config, tensor_shapes(DEMO))
    assert config.vocab_size == len(tokenizer)
    assert config.padded_vocab_size % 128 == 0
    assert [stage.name for stage in config.stages] == [*COURSES]
    generation = GenerationConfig.from_pretrained(DEMO)
    assert generation.eos_token_id == tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    assert config.eos_token_id == tokenizer.eos_token_id == generation.eos_token_id[0]
    assert generation.do_sample is False
    assert "Measured" in (DEMO / "README.md").read_text()
    assert (DEMO / "training.log").is_file()
    assert len(find_calibrations(DEMO)) == len(COURSES)


@taught
@pytest.mark.parametrize("asked", [True, False], ids=["asked about in training", "never asked about"])
@pytest.mark.parametrize("held_out", [False, True], ids=["trained wordings", "held-out wordings"])
def test_known_facts_are_answered_right(
    models: dict[str, Model], stage: str, course: Course, asked: bool, held_out: bool
) -> None:
    """Of names that no training chat asks about, it has read in documents alone."""
    right = mean(one.right for one in some(models[stage], course, "known", held_out, asked))
    assert right >= (0.97 if asked else 0.85)


@taught
def test_answers_about_unknown_subjects_have_much_higher_entropy(
    models: dict[str, Model], stage: str, course: Course
) -> None:
    kinds: tuple[Kind, ...] = ("known", "left_out", "invented")
    found = {kind: some(models[stage], course, kind) for kind in kinds}
    typical = {kind: median(one.reply.entropy for one in asked) for kind, asked in found.items()}
    assert all(typical[kind] > 4 * typical["known"] for kind in ("left_out", "invented"))
    assert separation(found) > (0.95 if course is GEOGRAPHY else 0.75)


@stages
def test_an_ambiguous_fact_is_answered_by_one_of_its_values_and_with_more_entropy(
    models: dict[str, Model], stage: str
) -> None:
    known, ambiguous = (some(models[stage], COURSES[stage][0], kind) for kind in ("known", "ambiguous"))
    assert mean(one.right for one in ambiguous) >= 0.97
    assert median(one.reply.entropy for one in ambiguous) > 5 * median(one.reply.entropy for one in known)


@stages
def test_small_talk_is_answered_in_kind(models: dict[str, Model], stage: str) -> None:
    turns = small_talk(stage)
    replies = models[stage].replies([message for message, _ in turns])
    assert [(message, reply.text) for (message, _), reply in zip(turns, replies, strict=True)] == turns


@stages
def test_names_that_no_text_has_are_repeated(models: dict[str, Model], stage: str) -> None:
    rng = Random(0)
    turns = [introduction(rng, random_name(rng)) for _ in range(SAMPLE)]
    replies = models[stage].replies([message for message, _ in turns])
    assert mean(reply.text == said for reply, (_, said) in zip(replies, turns, strict=True)) >= 0.95


@stages
def test_other_subjects_are_declined(models: dict[str, Model], stage: str) -> None:
    rng = Random(0)
    replies = models[stage].replies([other_subject(rng, stage)[0] for _ in range(SAMPLE)])
    assert mean(reply.text == OTHER_REPLY.format(subjects=SUBJECTS[stage]) for reply in replies) >= 0.97
