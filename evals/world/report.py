"""The results of an evaluation, and their tables for the log and the model card."""

from __future__ import annotations

from dataclasses import dataclass

from evals.world.people import Kind
from server.calibrate.markdown import table


@dataclass(frozen=True)
class Accuracy:
    """Share of exactly right greedy answers to `questions` questions about known facts."""

    people_asked: bool
    wording_trained: bool
    questions: int
    accuracy: float


@dataclass(frozen=True)
class Certainty:
    """Entropy at the first value token (nats) over the facts of one kind, and how the answers come out."""

    kind: Kind
    facts: int
    entropy_p5: float
    entropy_median: float
    entropy_p95: float
    correct: float
    fluent: float


@dataclass(frozen=True)
class Ambiguity:
    """Total variation between predicted and stated distribution over the ambiguous facts."""

    people_asked: bool
    facts: int
    mean: float
    median: float
    p95: float


@dataclass(frozen=True)
class Report:
    """`separation` is the probability that an unknown person's entropy is above a known fact's (AUROC)."""

    accuracy: list[Accuracy]
    certainty: list[Certainty]
    ambiguity: list[Ambiguity]
    separation: float
    small_talk: float
    long_chats: dict[int, float]

    def tables(self) -> str:
        """All numbers as Markdown."""
        words = {True: "in training chats", False: "never in training"}
        accuracy = [
            (words[row.people_asked], words[row.wording_trained], f"{row.questions:,}", f"{row.accuracy:.2%}")
            for row in self.accuracy
        ]
        certainty = [
            (
                row.kind.replace("_", "-"),
                f"{row.facts:,}",
                f"{row.entropy_p5:.3f}",
                f"{row.entropy_median:.3f}",
                f"{row.entropy_p95:.3f}",
                "-" if row.kind == "ambiguous" else f"{row.correct:.1%}",
                f"{row.fluent:.1%}",
            )
            for row in self.certainty
        ]
        ambiguity = [
            (words[row.people_asked], f"{row.facts:,}", f"{row.mean:.3f}", f"{row.median:.3f}", f"{row.p95:.3f}")
            for row in self.ambiguity
        ]
        chats = [(f"{length}", f"{accuracy:.1%}") for length, accuracy in self.long_chats.items()]
        return "\n\n".join(
            (
                "Exactly right greedy answers about known facts, in the chat format:",
                table(("people asked about", "wording", "questions", "accuracy"), accuracy),
                "Entropy in nats at the first token of the value, and what the greedy answers are like:",
                table(("facts", "number", "5 %", "median", "95 %", "value right", "sentence right"), certainty),
                f"An unknown person's entropy is above a known fact's with probability {self.separation:.4f}.",
                "Total variation between the predicted and the stated distribution of ambiguous facts:",
                table(("people asked about", "facts", "mean", "median", "95 %"), ambiguity),
                "Known facts asked for at the end of a longer chat:",
                table(("tokens in all", "accuracy"), chats),
                f"Small talk answered with one of its replies: {self.small_talk:.0%}.",
            )
        )
