"""Every signal of every token of given answers, from one pass of a stock model: those of its distribution, and the
closed form of each block's MLP.

The hidden units before the down projection stand for the parameter tokens of `model_impl.reference.closed_form`: their
activations for w, the columns of the projection for v. The gradient is that of the final RMSNorm after the last block,
so the effect of a block on the later ones is left out.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from evals.epr import RANKS
from evals.real.answering import StockModel
from evals.signals import token_signals
from model_impl.reference.closed_form import STRONGEST, WORDS, logit_variances

BATCH = 32
KEPT = 256
"""Answers in one file."""

CLOSED = ("units", "strongest", "strongest effects", "block")
"""Settings of the closed form: all units, the 64 of the largest |w| as served, the 64 of the largest |w| |v|, and the
block as one unit, whose removal as a whole moves the logits."""

Array = npt.NDArray[np.float64]


Columns = dict[str, Array]
"""Columns of the tokens of one answer, by name: float64 [tokens] for signals, [tokens, RANKS] for `top`, the
log-probabilities of the likeliest words, and [tokens, blocks] for CLOSED."""


def passes(model: StockModel, answers: Mapping[str, Sequence[int]], folder: Path) -> dict[str, Columns]:
    """By question, one teacher-forced pass over it and its answer; `folder` keeps those of an interrupted run."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {question: columns for file in sorted(folder.glob("*.npz")) for question, columns in loaded(file).items()}
    lacking = [question for question in answers if question not in found]
    random.Random(0).shuffle(lacking)
    for start in tqdm(range(0, len(lacking), KEPT), desc="passes"):
        part = sorted(lacking[start : start + KEPT], key=lambda question: len(answers[question]))
        new: dict[str, Columns] = {}
        for at in range(0, len(part), BATCH):
            batch = part[at : at + BATCH]
            columns = batch_pass(model, batch, [answers[question] for question in batch])
            split = {name: values.split([len(answers[q]) for q in batch]) for name, values in columns.items()}
            for row, question in enumerate(batch):
                new[question] = {name: values[row].double().numpy() for name, values in split.items()}
        save(new, folder / f"{len(found):05}.npz")
        found |= new
    return found


def save(found: Mapping[str, Columns], file: Path) -> None:
    names = next(iter(found.values()))
    columns = {name: np.concatenate([one[name] for one in found.values()]).astype(np.float32) for name in names}
    lengths = np.array([len(one["entropy"]) for one in found.values()])
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        np.savez(out, _questions=np.array(list(found)), _lengths=lengths, **columns)
    part.replace(file)


def loaded(file: Path) -> dict[str, Columns]:
    with np.load(file) as saved:
        bounds = np.cumsum(saved["_lengths"])[:-1]
        columns = {name: np.split(saved[name].astype(np.float64), bounds) for name in saved.files if name[0] != "_"}
        return {str(q): {name: of[i] for name, of in columns.items()} for i, q in enumerate(saved["_questions"])}


@torch.inference_mode()
def batch_pass(
    model: StockModel, questions: Sequence[str], answers: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """By name, what the answers' tokens have, one answer after the other."""
    ids, shared = model.shared
    prompts = [model.prompt(question)[len(ids) :] for question in questions]
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[model.end] * (width - len(row))] for row in rows])
    starts = [len(prompt) - 1 for prompt in prompts]  # a token's distribution is that of the position before it
    places = [(row, start + at) for row, start in enumerate(starts) for at in range(len(answers[row]))]
    at = tuple(torch.tensor(places).unbind(dim=-1))
    cache = copy.deepcopy(shared)
    cache.batch_repeat_interleave(len(rows))
    with watched(model.model, at) as (inputs, residuals):
        normed = model.model.model(tokens, past_key_values=cache).last_hidden_state[at]
    logits = model.model.lm_head(normed).float()
    chosen = torch.tensor([token for answer in answers for token in answer])
    top = logits.log_softmax(dim=-1).topk(RANKS).values
    return token_signals(logits, chosen) | {"top": top} | closed_forms(model.model, logits, residuals[0], inputs)


@contextmanager
def watched(model: nn.Module, at: tuple[torch.Tensor, ...]) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Within the block, the lists get the inputs of every down projection, and that of the final norm, at `at`."""
    inputs: list[torch.Tensor] = []
    residuals: list[torch.Tensor] = []
    modules = [*(layer.mlp.down_proj for layer in model.model.layers), model.model.norm]
    kept = [*[inputs] * len(model.model.layers), residuals]
    hooks = [
        module.register_forward_pre_hook(lambda _, args, to=to: to.append(args[0][at]))
        for module, to in zip(modules, kept, strict=True)
    ]
    try:
        yield inputs, residuals
    finally:
        for hook in hooks:
            hook.remove()


def closed_forms(
    model: nn.Module, logits: torch.Tensor, residual: torch.Tensor, inputs: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """By setting of CLOSED, the variance that one unit's removal gives to the logits, summed over units: [tokens,
    blocks]. A rate of masking would be a factor of all."""
    words = logits.topk(WORDS, dim=-1)
    probabilities = words.values.softmax(dim=-1)
    norm = model.model.norm
    head = model.lm_head.weight[words.indices]
    directions = logit_gradients(
        residual.float(), probabilities, head.float(), norm.weight.float(), norm.variance_epsilon
    )
    moving = directions.to(head.dtype)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in CLOSED}
    for layer, weights in zip(model.model.layers, inputs, strict=True):
        values = layer.mlp.down_proj.weight.t()
        shares = logit_variances(values, probabilities, moving, weights.float())
        found["units"].append(shares.sum(dim=-1))
        sizes = weights.float().abs()
        for name, order in (("strongest", sizes), ("strongest effects", sizes * values.float().norm(dim=-1))):
            chosen = order.topk(min(STRONGEST, order.shape[-1]), dim=-1).indices
            found[name].append(shares.gather(-1, chosen).sum(dim=-1))
        whole = torch.einsum("akd,ad->ak", directions, layer.mlp.down_proj(weights).float())
        found["block"].append((probabilities * whole.square()).sum(dim=-1))
    return {name: torch.stack(parts, dim=-1) for name, parts in found.items()}


def logit_gradients(
    residual: torch.Tensor, probabilities: torch.Tensor, head: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """g_v - E_p[g_v] [..., k, d] for a final RMSNorm, as `model_impl.reference.closed_form.logit_gradients` has it for
    LayerNorm: with x^ = x / rms, the logit u . (gamma x^) has the gradient (a - x^ mean(a x^)) / rms, a = gamma u."""
    scaled = head * weight
    scaled = scaled - (probabilities[..., None] * scaled).sum(dim=-2, keepdim=True)
    inverse = (residual.square().mean(dim=-1, keepdim=True) + eps).rsqrt()[..., None]
    normed = residual[..., None, :] * inverse
    return (scaled - normed * (scaled * normed).mean(dim=-1, keepdim=True)) * inverse


def sums(blocks: int) -> dict[str, list[int]]:
    """Sums of blocks by name; depths are relative, so that they exist in models of any depth."""
    every = list(range(blocks))
    at = {f"block at {share:.0%} of the depth": [round(share * (blocks - 1))] for share in (0.1, 0.5, 0.7, 0.8, 0.9)}
    return {
        "last block": every[-1:],
        "last but one": every[-2:-1],
        "third-last": every[-3:-2],
        "third-last and fourth-last": every[-4:-2],
        "last three": every[-3:],
        "last third": every[-(blocks // 3) :],
        "last third without the last two": every[-(blocks // 3) : -2],
        "last half": every[-(blocks // 2) :],
        "all": every,
        **at,
    }
