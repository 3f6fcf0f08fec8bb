"""The answers to all questions as arrays: labels, attributes, groups, and every signal by its name in the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import dropwhile, takewhile

import numpy as np

from demo.facts.names import words
from evals.answers import Answer
from evals.epr import epr, wepr_features
from evals.matching import Flags, Values
from evals.real.answering import Answered, StockModel
from evals.real.internals import Columns, sums
from evals.real.matching import Matcher, first_sentence, says_unknown
from evals.real.questions import Question
from evals.real.spans import STOP_WORDS, new_tokens, new_words
from evals.signals import agreement_signals
from server.calibrate.fitting import Answers
from server.uncertainty.score import ChoiceScore
from server.uncertainty.tokens import TokenScore

SOURCES = {
    "max probability": "top_surprisal",
    "entropy": "entropy",
    "variance": "variance",
    "margin": "margin",
    "self-certainty": "self_certainty",
    "logsumexp": "logsumexp",
    "LogTokU": "logtoku",
}
"""Signals of a token's distribution, with their name in `evals.signals`."""

CLOSED = {
    "closed form": ("strongest", "third-last and fourth-last"),
    "closed form of the last block": ("strongest", "last block"),
    "closed form of the last third": ("units", "last third"),
}
"""The closed form as served, and two others: units and blocks as `evals.real.internals` names them."""

SERVED = "closed form"

AGGREGATES: dict[str, Callable[[Values, Sequence[int]], float]] = {
    "first": lambda values, new: values[0],
    "max": lambda values, new: values.max(),
    "mean": lambda values, new: values.mean(),
    "first new word": lambda values, new: values[new[0]],
    "max of new words": lambda values, new: values[new].max(),
}
"""Aggregates over an answer's tokens. New words are those that the question has not, and no stop words."""

AGREEMENT = {"10 samples: semantic entropy": "semantic_entropy", "10 samples: disagreement": "disagreement"}


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
    passes: Mapping[str, Columns],
) -> View:
    """The view of all questions; the closed form is that of CLOSED_FORM."""
    matcher = Matcher.of([question.fact for question in questions])
    tokens = [model.judged(greedy[question.text].tokens[0]) for question in questions]
    texts = [first_sentence(model.text(one)) for one in tokens]
    wrong = np.array([not matcher.is_right(q.fact, text) for q, text in zip(questions, texts, strict=True)])
    found = [passes[question.text] for question in questions]
    closed = {name: [closed_form(one, *how) for one in found] for name, how in CLOSED.items()}
    scores = [score_of(model, *one) for one in zip(tokens, found, closed[SERVED], strict=True)]
    new = [new_tokens(score, new_words(q.text, text)) for score, q, text in zip(scores, questions, texts, strict=True)]
    signals = {
        "perplexity": np.array([one["surprisal"].mean() for one in found]),
        "sequence probability": np.array([one["surprisal"].sum() for one in found]),
    }
    for name, values in {**{name: [one[key] for one in found] for name, key in SOURCES.items()}, **closed}.items():
        for how, aggregate in AGGREGATES.items():
            signals[f"{name}, {how}"] = np.array([aggregate(*one) for one in zip(values, new, strict=True)])
    wepr = np.stack([wepr_features(one["top"]) for one in found])
    signals["EPR"] = epr(wepr)
    agreements = [agreement(model, q, one, samples) for q, one in zip(questions, tokens, strict=True)]
    signals |= {name: np.array([row[source] for row in agreements]) for name, source in AGREEMENT.items()}
    both = [np.concatenate([one["units"].mean(axis=0), one["units"].max(axis=0)]) for one in found]
    return View(questions, texts, wrong, signals, scores, wepr, np.stack(both))


def closed_form(found: Columns, units: str, blocks: str) -> Values:
    chosen: Values = found[units][:, sums(found[units].shape[-1])[blocks]].sum(axis=-1)
    return chosen


def score_of(model: StockModel, tokens: Sequence[int], signals: Mapping[str, Values], served: Values) -> ChoiceScore:
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

    Two answers mean the same if the first new words of theirs are the same: "It is Lima." and "The capital of Peru is
    Lima, by the sea."
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
    """The first words in a row of an answer's first sentence that neither the question has nor any sentence might."""
    if says_unknown(answer):
        return ()
    asked = {word.plain for word in words(question)} | STOP_WORDS
    said = dropwhile(lambda word: word in asked, (word.plain for word in words(first_sentence(answer))))
    return tuple(takewhile(lambda word: word not in asked, said))
