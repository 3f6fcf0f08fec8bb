"""Scores of single answers: is the greedy answer right, and how sure is the model at the first token of the value?

A greedy answer equals the expected one exactly where the most likely token after every prefix of the expected answer
is its next token, so one forward pass over question and expected answer decides without generating.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from transformers import PreTrainedTokenizerFast

from evals.world.tokenizer import END, END_OF_TEXT, special_id

BATCH = 128

Logits = Callable[[torch.Tensor], torch.Tensor]
"""A model, or one stage of it: token ids [B, T] -> logits [B, T, V]."""


class Stated(Protocol):
    """The members of a fact that scoring needs."""

    @property
    def distribution(self) -> tuple[tuple[str, float], ...]:
        """The values with their probabilities, likeliest first, sum 1."""

    @property
    def value(self) -> str:
        """The likeliest value."""

    def answer(self, value: str | None = None) -> str:
        """The sentence that states a value, by default `value`; it ends with the value and a full stop."""


StatedFact = TypeVar("StatedFact", bound=Stated)


@dataclass(frozen=True)
class Question(Generic[StatedFact]):
    """A question about a fact; `history` holds the earlier messages, oldest first."""

    fact: StatedFact
    text: str
    history: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Score(Generic[StatedFact]):
    """`correct`: the greedy answer is exactly the expected one. `fluent`: it is, except for the value.

    `entropy` (nats, full vocabulary) is that of the first value token's distribution, given the right sentence up to
    there; `total_variation` is that distribution's distance, in [0, 1], from the fact's own.
    """

    fact: StatedFact
    correct: bool
    fluent: bool
    entropy: float
    total_variation: float


@dataclass(frozen=True)
class Prompt(Generic[StatedFact]):
    """Token ids of question and expected answer. The answer starts at `start`, its value at `value`."""

    question: Question[StatedFact]
    ids: list[int]
    start: int
    value: int
    value_length: int


def score_questions(
    model: Logits, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question[StatedFact]]
) -> list[Score[StatedFact]]:
    """One score per question, in their order."""
    prompts = [encode(tokenizer, question) for question in questions]
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
    scores: dict[int, Score[StatedFact]] = {}
    for start in range(0, len(prompts), BATCH):
        batch = by_length[start : start + BATCH]
        scores |= zip(batch, score_batch(model, tokenizer, [prompts[i] for i in batch]), strict=True)
    return [scores[i] for i in range(len(prompts))]


def encode(tokenizer: PreTrainedTokenizerFast, question: Question[StatedFact]) -> Prompt[StatedFact]:
    messages = [*question.history, {"role": "user", "content": question.text}]
    head = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    fact, answer = question.fact, question.fact.answer()
    ids = tokenizer(head)["input_ids"]
    encoded = tokenizer(answer + END, return_offsets_mapping=True)
    first, last = len(answer) - 1 - len(fact.value), len(answer) - 1
    inside = [i for i, (_, stop) in enumerate(encoded["offset_mapping"]) if first < stop <= last]
    return Prompt(question, ids + encoded["input_ids"], len(ids), len(ids) + inside[0], len(inside))


@torch.no_grad()
def score_batch(
    model: Logits, tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt[StatedFact]]
) -> list[Score[StatedFact]]:
    padding = special_id(END_OF_TEXT)  # behind the text, where causal attention does not look
    longest = max(len(prompt.ids) for prompt in prompts)
    ids = torch.tensor([prompt.ids + [padding] * (longest - len(prompt.ids)) for prompt in prompts])
    logits = model(ids)
    greedy = logits.argmax(dim=-1)
    scores = []
    for row, prompt in enumerate(prompts):
        right = greedy[row, prompt.start - 1 : len(prompt.ids) - 1] == ids[row, prompt.start : len(prompt.ids)]
        value = prompt.value - prompt.start
        form = torch.cat((right[:value], right[value + prompt.value_length :]))
        log_probs = logits[row, prompt.value - 1].double().log_softmax(dim=-1)
        stated = value_distribution(tokenizer, prompt.question.fact, len(log_probs))
        scores.append(
            Score(
                prompt.question.fact,
                correct=bool(right.all()),
                fluent=bool(form.all()),
                entropy=float(-(log_probs.exp() * log_probs).sum()),
                total_variation=float((log_probs.exp() - stated).abs().sum() / 2),
            )
        )
    return scores


def value_distribution(tokenizer: PreTrainedTokenizerFast, fact: Stated, vocabulary: int) -> torch.Tensor:
    """The fact's distribution over the first token of its value, float64 [vocabulary]."""
    stated = torch.zeros(vocabulary, dtype=torch.float64)
    for value, share in fact.distribution:
        stated[first_value_token(tokenizer, fact, value)] += share
    return stated


def first_value_token(tokenizer: PreTrainedTokenizerFast, fact: Stated, value: str) -> int:
    """The token of the answer that first holds a character of `value`."""
    encoded = tokenizer(fact.answer(value), return_offsets_mapping=True)
    start = len(fact.answer(value)) - 1 - len(value)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return int(next(token for token, (_, stop) in pairs if stop > start))
