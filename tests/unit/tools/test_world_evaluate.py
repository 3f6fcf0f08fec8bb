"""Scores of the evaluation against plain greedy generation and brute force."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from evals.train import PEOPLE
from evals.world.evaluate import answer, draw_question, load_checkpoint, separation
from evals.world.people import KINDS, Fact, World
from evals.world.scoring import Question, first_value_token, score_questions

WORLD = World()
MODEL, TOKENIZER = load_checkpoint(PEOPLE)


def test_a_score_says_whether_greedy_generation_gives_the_answer() -> None:
    questions = [draw_question(fact) for kind in KINDS for fact in WORLD.facts_of(kind)[:5]]
    scores = score_questions(MODEL, TOKENIZER, questions)
    generated = [answer(MODEL, TOKENIZER, [{"role": "user", "content": question.text}]) for question in questions]
    right = [text == question.fact.answer() for text, question in zip(generated, questions, strict=True)]
    assert [score.correct for score in scores] == right
    assert 0 < sum(right) < len(right)
    assert all(score.fluent for score in scores if score.correct)


def test_entropy_and_total_variation_are_those_of_the_first_value_token() -> None:
    fact = WORLD.facts_of("ambiguous")[0]
    history = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"})
    [score] = score_questions(MODEL, TOKENIZER, [Question(fact, fact.questions()[0], history)])
    messages = [*history, {"role": "user", "content": fact.questions()[0]}]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    space = "" if fact.value[0].islower() else " "  # lower-case words carry the space before them
    text += fact.answer().removesuffix(f" {fact.value}.") + space
    with torch.no_grad():
        probs = MODEL(torch.tensor([TOKENIZER.encode(text)]))[0, -1].double().softmax(dim=-1)
    assert score.entropy == pytest.approx(float(torch.special.entr(probs).sum()), abs=1e-4)
    stated = {first_value_token(TOKENIZER, fact, value): share for value, share in fact.distribution}
    distance = sum(abs(float(probs[i]) - stated.get(i, 0.0)) for i in range(len(probs))) / 2
    assert score.total_variation == pytest.approx(distance, abs=1e-4)


@pytest.mark.parametrize("fact", WORLD.facts[:12], ids=lambda fact: fact.attribute.name)
def test_the_first_value_token_begins_the_value(fact: Fact) -> None:
    token = TOKENIZER.decode([first_value_token(TOKENIZER, fact, fact.value)])
    assert token.strip() and fact.value.startswith(token.strip())


def test_separation_is_the_share_of_pairs_in_the_right_order() -> None:
    low, high = [0.1, 0.5, 0.5, 2.0], [0.5, 1.0, 0.05]
    expected = sum((b > a) + (a == b) / 2 for a, b in product(low, high)) / (len(low) * len(high))
    assert separation(low, high) == pytest.approx(expected)
