"""The table of a trained model's signals, one row per question, which the tasks and the report read.

All answers are greedy, as the demo serves them. The table is saved beside the model and computed only if it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerFast

from evals.answers import BATCH, Answer, Draft, Logits, answers, greedy, padded, sampler
from evals.epr import epr, wepr_features
from evals.internals import INTERNALS, internals
from evals.members import Members, disagreement
from evals.questions import Item
from evals.signals import Values, agreement_signals, answer_signals, token_signals
from evals.twin import Twin
from evals.world.people import Fact
from evals.world.scoring import Prompt
from evals.world.tokenizer import END, special_id
from model_impl.reference.attribution import attribution
from model_impl.reference.closed_form import epistemic
from model_impl.reference.model import ReferenceTokenformer
from server.uncertainty.score import ChoiceScore
from server.uncertainty.tokens import TokenScore

SAMPLES = 10
MEMBERS = 16

SERVED = "served/"
"""Prefix of the features that the server computes (`server.uncertainty.score.ChoiceScore.features`)."""

TOP = 10
"""Log-probabilities of the first value token that a probe on logits reads, highest first."""

Vector = npt.NDArray[np.float32]


@dataclass
class Table:
    """Columns over the questions, in their order: signals float64 [n], vectors float32 [n, ...] that probes read."""

    signals: dict[str, Values] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    def save(self, file: Path) -> None:
        part = file.with_suffix(".part.npz")
        columns = {f"signal/{k}": v for k, v in self.signals.items()} | {
            f"vector/{k}": v for k, v in self.vectors.items()
        }
        np.savez(part, answers=np.array(self.answers), **columns)
        part.replace(file)

    @staticmethod
    def load(file: Path) -> Table:
        with np.load(file) as saved:
            columns = {
                kind: {name.split("/", 1)[1]: saved[name] for name in saved.files if name.startswith(kind)}
                for kind in ("signal/", "vector/")
            }
            return Table(columns["signal/"], columns["vector/"], saved["answers"].tolist())


@dataclass(frozen=True)
class Judged:
    """A greedy answer with its question: token ids, and the positions of the value in the answer."""

    prompt: Prompt[Fact]
    answer: Answer
    span: slice

    @property
    def ids(self) -> list[int]:
        return [*self.prompt.ids[: self.prompt.start], *self.answer.tokens]

    @property
    def places(self) -> slice:
        """Positions whose outputs are the distributions of the answer's tokens."""
        return slice(self.prompt.start - 1, len(self.ids) - 1)

    @property
    def first_value(self) -> int:
        """Position whose output is the distribution of the first value token."""
        return self.prompt.start - 1 + self.span.start


def judge(prompt: Prompt[Fact], answer: Answer) -> Judged:
    """The value stands between the expected beginning and the full stop; in another form of answer it is everything."""
    expected, form = prompt.ids[prompt.start :], prompt.value - prompt.start
    tokens = list(answer.tokens)
    stop = len(tokens) - (2 if tokens[-2:] == expected[-2:] else 0)
    start = form if tokens[:form] == expected[:form] and form < stop else 0
    return Judged(prompt, answer, slice(start, max(stop, start + 1)))


@torch.no_grad()
def score(
    model: ReferenceTokenformer,
    stage: int,
    tokenizer: PreTrainedTokenizerFast,
    members: Members,
    items: Sequence[Item],
    sampled: bool = True,
) -> Table:
    """Greedy answers of one stage of a Tokenformer, or of a twin, with all their signals.

    `members` are those of the ensemble. `sampled`: also the signals that need samples.
    """
    end = special_id(END)
    forward = partial(model.forward, stage=stage)
    prompts = [item.prompt(tokenizer) for item in items]
    drafts = [Draft(tuple(p.ids[: p.start]), tuple(p.ids[p.start :])) for p in prompts]
    judged = [judge(p, found[0]) for p, found in zip(prompts, answers(forward, drafts, end, greedy), strict=True)]
    rows: list[dict[str, float]] = [{} for _ in items]
    vectors: list[dict[str, Vector]] = [{} for _ in items]
    ordered = sorted(range(len(items)), key=lambda i: len(judged[i].ids))
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        part = [judged[i] for i in batch]
        ids = padded([one.ids for one in part])
        logits = forward(ids)
        if stage > 0:
            earlier = model(ids, stage - 1)
            chosen, row_numbers = torch.zeros_like(ids), torch.arange(len(part))
            places = torch.tensor([one.first_value for one in part])
            chosen[row_numbers, places] = torch.tensor([one.answer.tokens[one.span.start] for one in part])
            parts = attribution(model, ids, chosen)[row_numbers, places]
        disagreements = ensemble_signals(forward, members, ids, part)
        found = hidden_vectors(model, stage, ids, part)
        if not isinstance(model, Twin):
            spread = epistemic(model, ids, stage).double()
            found = [a | b for a, b in zip(found, internal_vectors(model, stage, ids, part), strict=True)]
        for row, i in enumerate(batch):
            name = tokenizer(items[i].person)["input_ids"]
            rows[i] |= output_signals(logits[row], judged[i], pieces(tokenizer, judged[i]))
            rows[i]["name_surprisal"] = name_surprisal(logits[row], judged[i], name)
            rows[i] |= disagreements[row]
            if not isinstance(model, Twin):
                rows[i] |= aggregates("closed_form", spread[row, judged[i].places], judged[i].span)
            if stage > 0:
                rows[i]["stage_gain"] = stage_gain(earlier[row], logits[row], judged[i])
                rows[i]["attribution"] = float(parts[row, -1])
                rows[i]["attribution_share"] = float(parts[row, -1] / parts[row].abs().sum())
            top = logits[row, judged[i].first_value].double().log_softmax(dim=-1).topk(TOP).values
            wepr = wepr_features(logits[row, judged[i].places].double().log_softmax(dim=-1).numpy())
            rows[i]["epr"] = float(epr(wepr))
            vectors[i] = found[row] | {"top_log_probs": top.float().numpy(), "wepr": wepr.astype(np.float32)}
    if sampled:
        drawn = answers(forward, drafts, end, sampler(torch.Generator().manual_seed(0)), SAMPLES)
        for signals, one, samples in zip(rows, judged, drawn, strict=True):
            signals |= agreement_signals(one.answer.tokens, one.answer.mean_logit, samples)
    texts = [str(tokenizer.decode(one.answer.tokens, skip_special_tokens=True)) for one in judged]
    stacked = {name: np.stack([vector[name] for vector in vectors]) for name in vectors[0]}
    return Table({name: np.array([row[name] for row in rows]) for name in rows[0]}, stacked, texts)


def output_signals(logits: torch.Tensor, one: Judged, texts: Sequence[str]) -> dict[str, float]:
    """The baselines' signals and the server's own features, from the logits [T, V] of question and answer.

    `texts` are the texts of the answer's tokens.
    """
    tokens = torch.tensor(one.answer.tokens)
    start = one.prompt.start - 1
    signals = token_signals(logits[start : start + len(tokens)], tokens)
    columns = [signals[name].tolist() for name in ("surprisal", "entropy", "variance", "margin")]
    served = ChoiceScore.of(
        TokenScore(-surprisal, entropy, variance, -margin, text, special=token == special_id(END))
        for surprisal, entropy, variance, margin, text, token in zip(*columns, texts, one.answer.tokens, strict=True)
    )
    features = served.features()
    assert features is not None  # an answer has a token, and these models' logits are finite
    length = {"value_tokens": float(one.span.stop - one.span.start)}
    return answer_signals(signals, one.span) | {f"{SERVED}{k}": v for k, v in features.items()} | length


def pieces(tokenizer: PreTrainedTokenizerFast, one: Judged) -> list[str]:
    return [str(tokenizer.decode([token])) for token in one.answer.tokens]


def stage_gain(earlier: torch.Tensor, logits: torch.Tensor, one: Judged) -> float:
    """ln p(answer) of the stage that gave it minus that of an earlier stage: the effect of the growth in between."""
    tokens = torch.tensor(one.answer.tokens)[:, None]
    later, before = (
        part[one.places].double().log_softmax(dim=-1).gather(-1, tokens).sum() for part in (logits, earlier)
    )
    return float(later - before)


@torch.no_grad()
def score_style(
    model: ReferenceTokenformer, stage: int, tokenizer: PreTrainedTokenizerFast, members: Members, names: Sequence[str]
) -> Table:
    """The position after a known person's name at the beginning of a document, where the continuation is a matter of
    style: any fact, in any of three wordings."""
    forward = partial(model.forward, stage=stage)
    found: dict[str, list[float]] = {}
    for start in range(0, len(names), BATCH):
        rows = tokenizer(list(names[start : start + BATCH]))["input_ids"]
        ids = padded(rows)
        place = torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])
        logits = forward(ids)[place]
        [both] = disagreement(forward, members, [MEMBERS], ids, place[1], *place).double()
        signals = token_signals(logits, logits.argmax(dim=-1)) | {"epistemic": both[:, 0], "aleatoric": both[:, 1]}
        for name, values in signals.items():
            found.setdefault(f"{name}_first", []).extend(values.tolist())
    return Table({name: np.array(values) for name, values in found.items()}, {}, list(names))


def name_surprisal(logits: torch.Tensor, one: Judged, name: Sequence[int]) -> float:
    """-ln p of the person's name in the question: its unfamiliarity, whatever the answer.

    The prompt is computed anyway, so the same pass gives it; the server's `prompt_logprobs` have it.
    """
    ids = one.ids
    at = next(i for i in range(1, len(ids)) if ids[i : i + len(name)] == list(name))
    log_probs = logits[at - 1 : at - 1 + len(name)].double().log_softmax(dim=-1)
    return -float(log_probs.gather(-1, torch.tensor(name)[:, None]).sum())


def ensemble_signals(
    forward: Logits, members: Members, ids: torch.Tensor, part: Sequence[Judged]
) -> list[dict[str, float]]:
    """Epistemic and aleatoric uncertainty: of the value's first token, their highest in it, the answer's mean."""
    lengths = [len(one.answer.tokens) for one in part]
    rows = torch.tensor([row for row, length in enumerate(lengths) for _ in range(length)])
    columns = torch.tensor([c for one in part for c in range(one.prompt.start - 1, len(one.ids) - 1)])
    starts = torch.tensor([one.prompt.start - 1 for one in part])
    [found] = disagreement(forward, members, [MEMBERS], ids, starts, rows, columns).double()
    return [
        aggregates("epistemic", both[:, 0], one.span) | aggregates("aleatoric", both[:, 1], one.span)
        for one, both in zip(part, found.split(lengths), strict=True)
    ]


def aggregates(name: str, tokens: torch.Tensor, span: slice) -> dict[str, float]:
    """Aggregates of a signal over an answer's tokens: the value's first, the value's highest, and the mean of all."""
    found = {"first": tokens[span][0], "max": tokens[span].max(), "mean": tokens.mean()}
    return {f"{name}_{how}": float(value) for how, value in found.items()}


def hidden_vectors(
    model: ReferenceTokenformer, stage: int, ids: torch.Tensor, part: Sequence[Judged]
) -> list[dict[str, Vector]]:
    """The outputs of all blocks where the value's first token is predicted, [L d]."""
    states = torch.cat(model.hidden_states(ids, stage), dim=-1)
    return [{"hidden": states[row, one.first_value].numpy()} for row, one in enumerate(part)]


def internal_vectors(
    model: ReferenceTokenformer, stage: int, ids: torch.Tensor, part: Sequence[Judged]
) -> list[dict[str, Vector]]:
    """`internals` [L, 5, 4] where the value's first token is predicted, and the growth stages' `contributions` there,
    [L, 5, stages], and `answer_contributions`, summed over the answer."""
    found = internals(model, ids, stage)
    return [
        {
            "internals": found[row, one.first_value, ..., : len(INTERNALS)].float().numpy(),
            "contributions": found[row, one.first_value, ..., len(INTERNALS) :].float().numpy(),
            "answer_contributions": found[row, one.prompt.start - 1 : len(one.ids) - 1, ..., len(INTERNALS) :]
            .sum(dim=0)
            .float()
            .numpy(),
        }
        for row, one in enumerate(part)
    ]
