"""Measure a checkpoint of world A with the reference model: `python -m evals.world.evaluate CHECKPOINT`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import mean, median, quantiles

import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from transformers import PreTrainedTokenizerFast

from evals.world.corpus import Chat
from evals.world.people import KINDS, WORLD_A, Fact, Kind, World
from evals.world.phrases import SMALL_TALK
from evals.world.report import Accuracy, Ambiguity, Certainty, Report
from evals.world.scoring import Question, Score, score_questions
from evals.world.tokenizer import CONTEXT, END, load_tokenizer, special_id
from model_impl.checkpoint.reading import load_config
from model_impl.reference.model import ReferenceTokenformer

WORDINGS = 2
"""Wordings drawn per fact in each cell of the accuracy table."""

LONG_CHATS, LONG_CHAT_LENGTHS = 200, (CONTEXT // 4, CONTEXT // 2, CONTEXT)


def load_checkpoint(directory: Path) -> tuple[ReferenceTokenformer, PreTrainedTokenizerFast]:
    """The reference model and the tokenizer of a checkpoint."""
    model = ReferenceTokenformer(load_config(directory))
    model.load_state_dict(load_file(directory / "model.safetensors"))
    return model.eval(), load_tokenizer(directory)


def evaluate(model: ReferenceTokenformer, tokenizer: PreTrainedTokenizerFast, world: World) -> Report:
    """All tables of the model card, over every fact of `world`; about two CPU minutes for world A."""
    accuracy = [
        known_accuracy(model, tokenizer, world, asked, held_out)
        for asked in (True, False)
        for held_out in (False, True)
    ]
    scores = score_questions(model, tokenizer, [draw_question(fact) for fact in world.facts])
    by_kind = {kind: [score for score in scores if score.fact.kind == kind] for kind in KINDS}
    return Report(
        accuracy,
        [certainty(kind, by_kind[kind]) for kind in KINDS],
        [ambiguity(by_kind["ambiguous"], asked) for asked in (True, False)],
        separation(*([score.entropy for score in by_kind[kind]] for kind in ("known", "unknown"))),
        small_talk_accuracy(model, tokenizer),
        {length: long_chat_accuracy(model, tokenizer, world, length) for length in LONG_CHAT_LENGTHS},
    )


def draw_question(fact: Fact, held_out: bool = False, number: int = 0) -> Question[Fact]:
    """Question `number` about a fact in an order of the wordings that is random per fact."""
    wordings = list(fact.questions(held_out))
    Random(f"{fact.person.name}/{fact.attribute.name}").shuffle(wordings)
    return Question(fact, wordings[number % len(wordings)])


def known_accuracy(
    model: ReferenceTokenformer, tokenizer: PreTrainedTokenizerFast, world: World, asked: bool, held_out: bool
) -> Accuracy:
    facts = [fact for fact in world.facts_of("known") if fact.person.asked == asked]
    questions = [draw_question(fact, held_out, number) for fact in facts for number in range(WORDINGS)]
    scores = score_questions(model, tokenizer, questions)
    return Accuracy(asked, not held_out, len(scores), mean(score.correct for score in scores))


def certainty(kind: Kind, scores: Sequence[Score[Fact]]) -> Certainty:
    entropies = [score.entropy for score in scores]
    cuts = quantiles(entropies, n=20)
    right, fluent = mean(score.correct for score in scores), mean(score.fluent for score in scores)
    return Certainty(kind, len(scores), cuts[0], median(entropies), cuts[-1], right, fluent)


def ambiguity(scores: Sequence[Score[Fact]], asked: bool) -> Ambiguity:
    distances = [score.total_variation for score in scores if score.fact.person.asked == asked]
    return Ambiguity(asked, len(distances), mean(distances), median(distances), quantiles(distances, n=20)[-1])


def separation(low: Sequence[float], high: Sequence[float]) -> float:
    """AUROC: the probability that a random element of `high` is above one of `low`; ties count half."""
    return float(roc_auc_score([False] * len(low) + [True] * len(high), [*low, *high]))


def small_talk_accuracy(model: ReferenceTokenformer, tokenizer: PreTrainedTokenizerFast) -> float:
    """Share of the small-talk messages that get one of their replies."""
    outcomes = [
        answer(model, tokenizer, [{"role": "user", "content": message}]) in replies
        for messages, replies in SMALL_TALK
        for message in messages
    ]
    return mean(outcomes)


@torch.no_grad()
def answer(
    model: ReferenceTokenformer, tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], limit: int = 64
) -> str:
    """The greedy answer to a chat, cut at `limit` tokens."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = list(tokenizer(text)["input_ids"])
    start, end = len(ids), special_id(END)
    while len(ids) < start + limit and ids[-1] != end:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def long_chat_accuracy(
    model: ReferenceTokenformer, tokenizer: PreTrainedTokenizerFast, world: World, length: int
) -> float:
    """Accuracy on known facts asked for at the end of a chat of about `length` tokens."""
    rng = Random("long chats")
    facts = [fact for fact in world.facts_of("known") if fact.person.asked]
    questions = []
    for fact in rng.sample(facts, LONG_CHATS):
        turns: tuple[tuple[str, str], ...] = ()
        room = length - 60  # for the question, its answer and what one more turn may exceed
        while room > 0:
            other = rng.choice(facts)
            turns += ((rng.choice(other.questions()), other.answer()),)
            room -= len(tokenizer("".join(turns[-1]))["input_ids"]) + 4
        questions.append(Question(fact, draw_question(fact).text, tuple(Chat(turns).messages())))
    return mean(score.correct for score in score_questions(model, tokenizer, questions))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evals.world.evaluate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="directory of the checkpoint")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    arguments = parser.parse_args()
    if not (arguments.checkpoint / "model.safetensors").is_file():
        sys.exit(f"{arguments.checkpoint}: no checkpoint here (model.safetensors is missing)")
    report = evaluate(*load_checkpoint(arguments.checkpoint), WORLD_A)
    print(json.dumps(asdict(report), indent=1) if arguments.json else report.tables())


if __name__ == "__main__":
    main()
