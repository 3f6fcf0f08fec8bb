"""Ask the demo in transformers, and count what comes back: `python -m demo.measure demo/checkpoint`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median, quantiles

import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from demo import manners
from demo.course import CHEMISTRY, GEOGRAPHY, KINDS, Course, Kind, Lesson
from demo.slips import as_typed
from model_impl.huggingface import TokenformerForCausalLM
from server.calibrate.markdown import table

BATCH = 256
LONGEST = 48
"""Most tokens of an answer; those of the training texts have up to 33."""

WORDINGS = 2
"""Wordings drawn for every fact in each row of the table of accuracies."""

COURSES = {"base": (GEOGRAPHY,), "chemistry": (GEOGRAPHY, CHEMISTRY)}
"""Growth stage -> the courses that it has learned."""


@dataclass(frozen=True)
class Reply:
    """A greedy answer, and the highest entropy of its tokens' distributions in nats, over the full vocabulary."""

    text: str
    entropy: float


@dataclass(frozen=True)
class Asked:
    lesson: Lesson
    reply: Reply

    @property
    def right(self) -> bool:
        return self.reply.text in self.lesson.answers()

    @property
    def in_form(self) -> bool:
        """Whether the answer is what the texts would say, but for the value."""
        return self.reply.text.startswith(self.lesson.answer("").removesuffix(".").strip())


class Model:
    """A growth stage of a checkpoint, with its tokenizer."""

    def __init__(self, checkpoint: Path, stage: str) -> None:
        self.stage = stage
        self.model = TokenformerForCausalLM.from_pretrained(checkpoint, stage=stage).eval()
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")

    def replies(self, messages: Sequence[str]) -> list[Reply]:
        """The greedy answers to single messages, in their order."""
        order = sorted(range(len(messages)), key=lambda i: len(messages[i]))
        found: dict[int, Reply] = {}
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            found |= zip(batch, self._generate([messages[i] for i in batch]), strict=True)
        return [found[i] for i in range(len(messages))]

    @torch.no_grad()
    def _generate(self, messages: Sequence[str]) -> list[Reply]:
        chats = [[{"role": "user", "content": message}] for message in messages]
        options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True, "padding": True}
        inputs = self.tokenizer.apply_chat_template(chats, **options)
        settings = {"do_sample": False, "temperature": None, "output_logits": True, "return_dict_in_generate": True}
        output = self.model.generate(**inputs, max_new_tokens=LONGEST, **settings)
        answers = output.sequences[:, inputs["input_ids"].shape[1] :]
        logits = torch.stack(output.logits, dim=1).double().log_softmax(-1)
        entropies = -(logits.exp() * logits.clamp(min=-1e4)).sum(-1)
        counted = answers != self.tokenizer.pad_token_id
        highest = entropies.masked_fill(~counted, 0).amax(1)
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [Reply(text, float(entropy)) for text, entropy in zip(texts, highest, strict=True)]

    def ask(
        self, lessons: Iterable[Lesson], held_out: bool = False, number: int = 1, typed: bool = False
    ) -> list[Asked]:
        """The answers about `lessons`, each asked for in `number` wordings; `typed`: as people type them."""
        pairs = [(lesson, text) for lesson in lessons for text in wordings(lesson, held_out, number, typed)]
        replies = self.replies([text for _, text in pairs])
        return [Asked(lesson, reply) for (lesson, _), reply in zip(pairs, replies, strict=True)]


def wordings(lesson: Lesson, held_out: bool, number: int, typed: bool) -> list[str]:
    rng = Random(f"measured/{lesson.subject}/{lesson.attribute}/{held_out}")
    chosen = rng.sample(lesson.questions(held_out), number)
    return [as_typed(rng, text) for text in chosen] if typed else chosen


def share(asked: Sequence[Asked]) -> str:
    return f"{sum(one.right for one in asked) / len(asked):.2%}"


def accuracies(model: Model, course: Course) -> list[tuple[str, ...]]:
    """Rows of right greedy answers about known facts."""
    names = {True: "asked for in training chats", False: "never asked for"}
    rows = []
    for asked in (True, False):
        lessons = [lesson for lesson in course.of("known") if lesson.asked == asked]
        for wording, held_out, typed in (
            ("trained", False, False),
            ("never trained", True, False),
            ("typed", True, True),
        ):
            found = model.ask(lessons, held_out, WORDINGS, typed)
            rows.append((model.stage, course.name, names[asked], wording, f"{len(found):,}", share(found)))
    return rows


def certainties(asked: dict[Kind, list[Asked]], stage: str, course: str) -> list[tuple[str, ...]]:
    """Rows of the highest entropy of an answer by kind, and of what the answers are like."""
    rows = []
    for kind, found in asked.items():
        entropies = [one.reply.entropy for one in found]
        cuts = [quantiles(entropies, n=20)[0], median(entropies), quantiles(entropies, n=20)[-1]]
        right = "-" if kind == "invented" else share(found)
        form = f"{sum(one.in_form for one in found) / len(found):.1%}"
        rows.append(
            (stage, course, kind.replace("_", " "), f"{len(found):,}", *(f"{cut:.3f}" for cut in cuts), right, form)
        )
    return rows


def separation(asked: dict[Kind, list[Asked]]) -> float:
    """AUROC: the probability that an answer about something unknown has a higher entropy than a known fact's."""
    known, unknown = asked["known"], [*asked["left_out"], *asked["invented"]]
    entropies = [one.reply.entropy for one in (*known, *unknown)]
    return float(roc_auc_score([0] * len(known) + [1] * len(unknown), entropies))


def manner_shares(model: Model) -> list[tuple[str, ...]]:
    """Rows of right replies to what asks for no fact."""
    rng, stage = Random("measured/manners"), model.stage
    names = [lesson.subject for course in COURSES[stage] for lesson in course.of("known")]
    turns = {
        "small talk": manners.small_talk(stage),
        "a name that no text has": [manners.introduction(rng, manners.random_name(rng)) for _ in range(300)],
        "another subject": [manners.other_subject(rng, stage) for _ in range(300)],
        "another attribute": [manners.other_attribute(rng, rng.choice(names)) for _ in range(300)],
    }
    rows = []
    for name, asked in turns.items():
        replies = model.replies([message for message, _ in asked])
        right = sum(reply.text == wanted for reply, (_, wanted) in zip(replies, asked, strict=True))
        rows.append((stage, name, f"{len(asked)}", f"{right / len(asked):.1%}"))
    return rows


def measured(checkpoint: Path) -> str:
    """All tables, as Markdown."""
    right, certain, separations, polite = [], [], [], []
    for stage in COURSES:
        model = Model(checkpoint, stage)
        for course in (GEOGRAPHY, CHEMISTRY):
            if course in COURSES[stage]:
                right += accuracies(model, course)
                asked = {kind: model.ask(course.of(kind)) for kind in KINDS if course.of(kind)}
                certain += certainties(asked, stage, course.name)
                separations.append((stage, course.name, f"{separation(asked):.4f}"))
            else:
                found = model.ask(course.of("known"))
                right.append((stage, course.name, "not learned", "trained", f"{len(found):,}", share(found)))
        polite += manner_shares(model)
    parts = (
        "Right greedy answers about known facts. A wording is typed as people do: in lower case, without punctuation, "
        "with a slip, each now and then; these wordings are never trained.",
        table(("stage", "facts", "country or element", "wording", "questions", "right"), right),
        "The highest entropy of an answer's tokens in nats, and what the answers are like. An answer is in form if it "
        "is what a text would say, but for the value.",
        table(("stage", "facts", "kind", "number", "5 %", "median", "95 %", "right", "in form"), certain),
        "The probability that the highest entropy of an answer about something left out or invented is above that of "
        "an answer about a known fact:",
        table(("stage", "facts", "AUROC"), separations),
        "Messages that ask for no fact:",
        table(("stage", "message", "number", "right reply"), polite),
    )
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.measure", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="directory of the demo checkpoint")
    checkpoint = parser.parse_args().checkpoint
    if not (checkpoint / "model.safetensors").is_file():
        sys.exit(f"{checkpoint}: no demo checkpoint here (model.safetensors is missing)")
    print(measured(checkpoint))


if __name__ == "__main__":
    main()
