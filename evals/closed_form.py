"""The closed form under study: which layers, how many words and parameter tokens, and which aggregate of an answer.

`python -m evals.closed_form` judges the base stage of every trained seed, and its twin, whose hidden units stand for
parameter tokens. It writes evals/results/closed-form.json and the table closed-form.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from evals.answers import BATCH, Draft, answers, greedy, padded
from evals.matching import Values, matched_auroc, weighted_auroc
from evals.questions import Item, draw_items
from evals.results import RESULTS, rounded
from evals.run import RATE
from evals.score import Judged, judge
from evals.train import RUNS, SEEDS, Subject
from evals.twin import Mlp, Twin
from evals.world.tokenizer import END, special_id
from model_impl.reference.closed_form import logit_variances, word_directions
from model_impl.reference.model import ReferenceTokenformer
from model_impl.reference.watch import watching
from server.calibrate.markdown import table

WORDS = (4, 8, 16, 32, 100)
MAIN = 32
STRONGEST = (16, 64, 256)
"""Numbers of parameter tokens, those of the largest weights, that are counted alone."""

AGGREGATES: dict[str, Callable[[Values], float]] = {"first": lambda v: float(v[0]), "max": np.max, "mean": np.mean}
ALL, LAST_BLOCK, LAST = "all blocks", "last block", "last feed-forward"

LEGEND = """\
Written by `python -m evals.closed_form`. AUROC of each signal over the greedy answers of a seed's base stage.
"unknown": unknown people and facts never stated against ambiguous facts, at equal entropy of the value's first token.
"wrong": wrong answers against right ones. A signal's last word is its aggregate over the tokens of the value."""

Signals = dict[str, Values]
"""By setting, what every token of an answer's value has."""


@contextmanager
def activations(model: ReferenceTokenformer) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Within the block, the list gets w [B, T, n] and v [n, d] of every run of an output projection or feed-forward; of
    a twin, its hidden units' activations and the rows of its second matrices."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    if not isinstance(model, Twin):
        with watching(model, lambda seen: found.append((seen.weights, seen.values)), ("output", "ffn")):
            yield found
        return
    hooks = [
        layer.register_forward_hook(lambda m, x, _: found.append((F.gelu(F.linear(x[0], m.keys)), m.values)))
        for layer in model.modules()
        if isinstance(layer, Mlp)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def token_signals(model: ReferenceTokenformer, part: Sequence[Judged]) -> list[Signals]:
    """For each answer, the closed form of the value's tokens in every setting, and their entropy; nats."""
    ids = padded([one.ids for one in part])
    places = [(row, one.prompt.start - 1 + at) for row, one in enumerate(part) for at in range(*one.span.indices(99))]
    rows, columns = torch.tensor(places).unbind(dim=-1)
    with activations(model) as seen:
        residual = model.hidden_states(ids, 0)[-1][rows, columns]
    norm, head = model.final_norm(), model.head_weight()
    entropy = torch.special.entr(F.linear(norm(residual), head).softmax(dim=-1)).sum(dim=-1)
    found = {"entropy": entropy}
    units = [(weights[rows, columns], values) for weights, values in seen]
    block = len(units) // model.config.num_hidden_layers
    for words in WORDS:
        directions = word_directions(residual, norm, head, words)
        shares = [RATE * (1 - RATE) / 2 * logit_variances(v, *directions, w) for w, v in units]
        sums = torch.stack([share.sum(dim=-1) for share in shares])
        name = f"{words} words"
        found |= {f"{ALL}, {name}": sums.sum(dim=0), f"{LAST}, {name}": sums[-1]}
        if words == MAIN:
            found[f"{LAST_BLOCK}, {name}"] = sums[-block:].sum(dim=0)
            found |= {f"{own}, {name}, share of the entropy": found[f"{own}, {name}"] / entropy for own in (ALL, LAST)}
            for count in STRONGEST:
                strongest = units[-1][0].abs().topk(min(count, shares[-1].shape[-1]), dim=-1).indices
                found[f"{LAST}, {name}, {count} tokens"] = shares[-1].gather(-1, strongest).sum(dim=-1)
    lengths = [one.span.stop - one.span.start for one in part]
    split = {name: values.double().split(lengths) for name, values in found.items()}
    return [{name: values[i].numpy() for name, values in split.items()} for i in range(len(part))]


def figures(
    model: ReferenceTokenformer, tokenizer: PreTrainedTokenizerFast, items: Sequence[Item]
) -> dict[str, dict[str, float]]:
    """AUROC of every setting and aggregate: unknown and never stated facts against ambiguous ones at equal entropy, and
    wrong answers, of all kinds and of facts with one answer."""
    prompts = [item.prompt(tokenizer) for item in items]
    drafts = [Draft(tuple(p.ids[: p.start]), tuple(p.ids[p.start :])) for p in prompts]
    end, forward = special_id(END), partial(model.forward, stage=0)
    judged = [judge(p, found[0]) for p, found in zip(prompts, answers(forward, drafts, end, greedy), strict=True)]
    order = sorted(range(len(items)), key=lambda i: len(judged[i].ids))
    signals: dict[int, Signals] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        signals |= dict(zip(batch, token_signals(model, [judged[i] for i in batch]), strict=True))
    texts = [str(tokenizer.decode(one.answer.tokens, skip_special_tokens=True)) for one in judged]
    wrong = np.array([not item.right(text) for item, text in zip(items, texts, strict=True)])
    kind = np.array([item.fact.kind for item in items])
    unsure, single = kind != "known", kind != "ambiguous"
    entropy = np.array([signals[i]["entropy"][0] for i in range(len(items))])
    rows = {}
    for name in signals[0]:
        for how, aggregate in AGGREGATES.items():
            values = np.array([aggregate(signals[i][name]) for i in range(len(items))])
            one = np.ones((1, len(items)))
            rows[f"{name}, {how}"] = {
                "unknown": float(matched_auroc(single[unsure], values[unsure], entropy[unsure], one[:, unsure])[0]),
                "wrong": float(weighted_auroc(wrong, values, one)[0]),
                "wrong, one answer": float(weighted_auroc(wrong[single], values[single], one[:, single])[0]),
            }
    return rows


def markdown(found: Mapping[str, dict[str, dict[str, float]]]) -> str:
    """Every model's figures side by side."""
    columns = [(model, task) for model, signals in found.items() for task in next(iter(signals.values()))]
    names = next(iter(found.values()))
    rows = [[name, *(f"{found[model][name][task]:.3f}" for model, task in columns)] for name in names]
    return table(["signal", *(f"{model}: {task}" for model, task in columns)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evals.closed_form", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="where models are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for seed in SEEDS:
        subject = Subject(seed, arguments.runs)
        items = [i for i in draw_items(subject.world, subject.world_b, subject.recipe.epochs) if i.world == "A"]
        for kind in ("base", "twin"):
            if subject.trained(kind):
                model, tokenizer = subject.twin() if kind == "twin" else subject.tokenformer(kind)
                found[f"seed {seed} {kind}"] = figures(model, tokenizer, items)
    (arguments.results / "closed-form.json").write_text(json.dumps(rounded(found), indent=1) + "\n")
    text = f"# The closed form under study\n\n{LEGEND}\n\n{markdown(found)}\n"
    (arguments.results / "closed-form.md").write_text(text)


if __name__ == "__main__":
    main()
