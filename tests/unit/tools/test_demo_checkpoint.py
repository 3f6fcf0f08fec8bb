"""The committed demo checkpoint is complete, small, right about known people, and unsure about others."""

from __future__ import annotations

from random import Random
from statistics import mean, median

import pytest
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from evals.world.evaluate import answer, draw_question, load_checkpoint, separation
from evals.world.people import Kind, World
from evals.world.phrases import SMALL_TALK
from evals.world.scoring import Score, score_questions
from evals.world.tokenizer import CONTEXT, special_id
from model_impl.checkpoint.reading import check_tensors, load_config, tensor_shapes
from model_impl.reference.model import ReferenceTokenformer
from tests.support.paths import ROOT

CHECKPOINT = ROOT / "demo" / "checkpoint"
WORLD = World()


@pytest.fixture(scope="module")
def loaded() -> tuple[ReferenceTokenformer, PreTrainedTokenizerFast]:
    return load_checkpoint(CHECKPOINT)


def scores(
    loaded: tuple[ReferenceTokenformer, PreTrainedTokenizerFast], kind: Kind, asked: bool | None, held_out: bool
) -> list[Score]:
    """Scores of 100 random facts of a kind."""
    facts = [fact for fact in WORLD.facts_of(kind) if asked is None or fact.person.asked == asked]
    return score_questions(*loaded, [draw_question(fact, held_out) for fact in Random(0).sample(facts, 100)])


def test_the_directory_is_complete_small_and_consistent() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 10_000_000
    config, tokenizer = load_config(CHECKPOINT), AutoTokenizer.from_pretrained(CHECKPOINT)
    check_tensors(config, tensor_shapes(CHECKPOINT))
    assert config.vocab_size == len(tokenizer) and config.padded_vocab_size % 128 == 0
    assert [stage.name for stage in config.stages] == ["base", "world-b"] and config.max_position_embeddings == CONTEXT
    generation = GenerationConfig.from_pretrained(CHECKPOINT)
    assert generation.eos_token_id == [special_id("<|end|>"), special_id("<|endoftext|>")]
    assert config.eos_token_id == tokenizer.eos_token_id == special_id("<|end|>")
    assert "Measured" in (CHECKPOINT / "README.md").read_text() and (CHECKPOINT / "training.log").is_file()


@pytest.mark.parametrize("asked", [True, False], ids=["people asked about in training", "people never asked about"])
@pytest.mark.parametrize("held_out", [False, True], ids=["trained wordings", "held-out wordings"])
def test_known_facts_are_answered_right(
    loaded: tuple[ReferenceTokenformer, PreTrainedTokenizerFast], asked: bool, held_out: bool
) -> None:
    assert mean(score.correct for score in scores(loaded, "known", asked, held_out)) >= 0.97


def test_unknown_people_get_fluent_answers_with_much_higher_entropy(
    loaded: tuple[ReferenceTokenformer, PreTrainedTokenizerFast],
) -> None:
    known, unknown = (scores(loaded, kind, None, False) for kind in ("known", "unknown"))
    assert mean(score.fluent for score in unknown) >= 0.95
    assert median(score.entropy for score in unknown) > 5 * median(score.entropy for score in known)
    assert separation(*([score.entropy for score in side] for side in (known, unknown))) > 0.95


def test_ambiguous_facts_are_answered_with_about_their_distribution(
    loaded: tuple[ReferenceTokenformer, PreTrainedTokenizerFast],
) -> None:
    assert median(score.total_variation for score in scores(loaded, "ambiguous", None, False)) < 0.3


@pytest.mark.parametrize("messages, replies", SMALL_TALK, ids=[messages[0] for messages, _ in SMALL_TALK])
def test_small_talk_is_answered_in_kind(
    loaded: tuple[ReferenceTokenformer, PreTrainedTokenizerFast], messages: tuple[str, ...], replies: tuple[str, ...]
) -> None:
    assert answer(*loaded, [{"role": "user", "content": messages[0]}]) in replies
