"""The answers to all questions as arrays: labels, attributes, groups, and every signal by its name in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evals.answers import Answer
from evals.epr import epr, wepr_features
from evals.matching import Flags, Values
from evals.real.answering import Answered, StockModel
from evals.real.internals import Passes
from evals.real.matching import Matcher, first_sentence, says_unknown, words
from evals.real.questions import Question
from evals.signals import agreement_signals
from server.calibrate.fitting import Answers
from server.uncertainty.score import ChoiceScore
from server.uncertainty.tokens import TokenScore

PLAIN = {
    "max probability": ("top_surprisal", "max"),
    "perplexity": ("surprisal", "mean"),
    "sequence probability": ("surprisal", "sum"),
    "entropy, first": ("entropy", "first"),
    "entropy, max": ("entropy", "max"),
    "entropy, mean": ("entropy", "mean"),
    "variance, first": ("variance", "first"),
    "variance, max": ("variance", "max"),
    "variance, mean": ("variance", "mean"),
    "margin, min": ("margin", "max"),
    "margin, mean": ("margin", "mean"),
    "self-certainty, first": ("self_certainty", "first"),
    "self-certainty, mean": ("self_certainty", "mean"),
    "logsumexp, mean": ("logsumexp", "mean"),
    "LogTokU, max": ("logtoku", "max"),
    "LogTokU, mean": ("logtoku", "mean"),
}
"""Signals of a distribution, with their name in `evals.signals` and their aggregate over the answer's tokens."""

AGGREGATES = {"first": lambda v: v[0], "max": np.max, "mean": np.mean, "sum": np.sum}
AGREEMENT = {"10 samples: semantic entropy": "semantic_entropy", "10 samples: disagreement": "disagreement"}
STOP_WORDS = frozenset("a an the is are was were be of in on to and or it its this that which with as by for from".split())


@dataclass(frozen=True)
class View:
    """Greedy answers to some questions; all columns have their order."""

    questions: Sequence[Question]
    texts: Sequence[str]
    """First sentences."""
    wrong: Flags
    signals: Mapping[str, Values]
    scores: Sequence[ChoiceScore]
    """As the server has them, with the closed form that is served."""
    wepr: Values
    by_block: Values
    """Mean and highest closed form of every block, float64 [n, 2 blocks]."""

    def where(self, rows: Flags) -> View:
        index = np.flatnonzero(rows)
        return View(
            [self.questions[i] for i in index],
            [self.texts[i] for i in index],
            self.wrong[index],
            {name: column[index] for name, column in self.signals.items()},
            [self.scores[i] for i in index],
            self.wepr[index],
            self.by_block[index],
        )

    @cached_property
    def kind(self) -> np.ndarray:
        return np.array([question.kind for question in self.questions])

    @cached_property
    def attribute(self) -> np.ndarray:
        return np.array([question.fact.attribute for question in self.questions])

    @cached_property
    def groups(self) -> list[str]:
        return [question.fact.group for question in self.questions]

    @cached_property
    def answers(self) -> Answers:
        """As `tokenformer calibrate` fits them."""
        _, clusters = np.unique(self.groups, return_inverse=True)
        features = [score.features() or {} for score in self.scores]
        return Answers(features, self.wrong, clusters, self.attribute.tolist())


def view(
    model: StockModel,
    questions: Sequence[Question],
    greedy: Mapping[str, Answered],
    samples: Mapping[str, Answered],
    found: Passes,
    served: Values,
    closed: Mapping[str, Values],
) -> View:
    """`served` is the closed form of every token that an engine reports; `closed` has further settings by name."""
    matcher = Matcher.of([question.fact for question in questions])
    tokens = [model.judged(greedy[question.text].tokens[0]) for question in questions]
    texts = [first_sentence(model.text(one)) for one in tokens]
    wrong = np.array([not matcher.is_right(q.fact, text) for q, text in zip(questions, texts, strict=True)])
    stops = np.cumsum(found.lengths)
    parts = [slice(stop - size, stop) for stop, size in zip(stops, found.lengths, strict=True)]

    def column(tokens: Values, how: str) -> Values:
        return np.array([AGGREGATES[how](tokens[part]) for part in parts], dtype=np.float64)

    signals = {name: column(found.signals[source], how) for name, (source, how) in PLAIN.items()}
    for name, values in {"closed form": served, **closed}.items():
        signals |= {f"{name}, {how}": column(values, how) for how in ("first", "max", "mean")}
    wepr = np.stack([wepr_features(found.top[part]) for part in parts])
    signals["EPR"] = epr(wepr)
    agreements = [agreement(model, q, one, samples) for q, one in zip(questions, tokens, strict=True)]
    signals |= {name: np.array([row[source] for row in agreements]) for name, source in AGREEMENT.items()}
    scores = [
        score_of(model, one, {name: values[part] for name, values in found.signals.items()}, served[part])
        for one, part in zip(tokens, parts, strict=True)
    ]
    units = found.blocks["units"]
    both = [np.concatenate([units[part].mean(axis=0), units[part].max(axis=0)]) for part in parts]
    return View(questions, texts, wrong, signals, scores, wepr, np.stack(both))


def score_of(
    model: StockModel, tokens: Sequence[int], signals: Mapping[str, Values], served: Values
) -> ChoiceScore:
    """The server's score of an answer."""
    scores, text = [], ""
    for i, token in enumerate(tokens):
        longer = model.text(tokens[: i + 1])
        longer = text if longer.endswith("\ufffd") else longer
        scores.append(
            TokenScore(
                logprob=-float(signals["surprisal"][i]),
                entropy=float(signals["entropy"][i]),
                variance=float(signals["variance"][i]),
                margin=-float(signals["margin"][i]),
                text=longer[len(text) :],
                start=len(text),
                special=token == model.end,
                epistemic=float(served[i]),
            )
        )
        text = longer
    return ChoiceScore.of(scores)


def agreement(
    model: StockModel, question: Question, greedy: Sequence[int], samples: Mapping[str, Answered]
) -> dict[str, float]:
    """`evals.signals.agreement_signals` of the samples' meanings; NaN for a question that has none.

    Two answers mean the same if their first sentences have the same words, without the question's and without stop
    words: "It is Lima." and "The capital of Peru is Lima."
    """
    if question.text not in samples:
        return dict.fromkeys(AGREEMENT.values(), np.nan)
    numbers: dict[tuple[str, ...], int] = {}

    def meaning(tokens: Sequence[int]) -> tuple[int, ...]:
        said = meant(question.text, model.text(tokens))
        return (numbers.setdefault(said, len(numbers)),)

    counts: dict[tuple[int, ...], int] = {}
    for tokens in samples[question.text].tokens:
        counts[meaning(tokens)] = counts.get(meaning(tokens), 0) + 1
    return agreement_signals(meaning(greedy), 0.0, [Answer(said, count, 0.0) for said, count in counts.items()])


def meant(question: str, answer: str) -> tuple[str, ...]:
    """The words of an answer's first sentence that neither the question has nor any sentence might."""
    if says_unknown(answer):
        return ()
    asked = {word.plain for word in words(question)} | STOP_WORDS
    return tuple(word.plain for word in words(first_sentence(answer)) if word.plain not in asked)
