"""Epistemic uncertainty of one pass: the mutual information of the parameter-token ensemble in closed form.

Each parameter token i of an output projection or feed-forward adds w_i v_i to the residual stream. Masking every token
with probability r, independently, moves the logit of word v by -sum_i m_i w_i (v_i . g_v), where g_v is the gradient of
that logit with respect to the residual stream (direct effect: later blocks are held fixed). To second order in these
moves, the mutual information between the next word and the mask is half the variance of the centred logits
(a second-order expansion of the Kullback-Leibler divergence, as in Depeweg et al. 2018 for the split itself):

    I = r (1 - r) / 2 * sum_i w_i^2 * Var_{v ~ p}(v_i . g_v)   nats
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model_impl.reference.model import ReferenceTokenformer
from model_impl.reference.watch import Seen, watching

WORDS = 16
"""Likeliest words whose logits are looked at; their probabilities are renormalised. csrc/report.c has room
for as many."""

STRONGEST = 64
"""Parameter tokens that are counted, those of the largest |w|. All others together add a hundredth to AUROC at most
(evals/results/closed-form.md)."""


@torch.no_grad()
def epistemic(
    model: ReferenceTokenformer, input_ids: torch.Tensor, stage: int = -1, words: int = WORDS
) -> torch.Tensor:
    """Epistemic uncertainty of the token after every position, at the model's `ensemble_rate`: ids [B, T] -> [B, T].

    It counts the `STRONGEST` parameter tokens of the last feed-forward alone, whose effect on the logits is direct.
    """
    seen: list[Seen] = []
    with watching(model, seen.append, ("ffn",)):
        residual = model.hidden_states(input_ids, stage)[-1]
    probabilities, directions = word_directions(residual, model.final_norm(), model.head_weight(), words)
    rate = model.config.ensemble_rate
    weights = seen[-1].weights
    strongest = weights.abs().topk(min(STRONGEST, weights.shape[-1]), dim=-1).indices
    values = seen[-1].values[strongest]
    spread = logit_variances(values, probabilities, directions, weights.gather(-1, strongest)).sum(dim=-1)
    return rate * (1 - rate) / 2 * spread


def word_directions(
    residual: torch.Tensor, norm: nn.LayerNorm, head: torch.Tensor, words: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k likeliest words after `residual` [..., d], k at most `words`: p [..., k], renormalised, and their
    `logit_gradients`."""
    logits = F.linear(norm(residual), head)
    found = logits.topk(min(words, logits.shape[-1]), dim=-1)
    probabilities = found.values.softmax(dim=-1)
    return probabilities, logit_gradients(residual, probabilities, head[found.indices], norm.weight, norm.eps)


def logit_gradients(
    residual: torch.Tensor,
    probabilities: torch.Tensor,
    head: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    centred: bool = True,
) -> torch.Tensor:
    """g_v - E_p[g_v] [..., k, d]: how each word's logit, above the mean of all, answers to the residual stream
    [..., d]. `head` [..., k, d] are the words' rows u of the head; `weight` [d] and `eps` are the final norm's, which
    is a LayerNorm, or, not `centred`, an RMSNorm.

    With x^ = (x - mean) / sigma, the logit u . (gamma x^ + beta) has the gradient
    (a - mean(a) - x^ mean(a x^)) / sigma, a = gamma u. An RMSNorm lacks both means but mean(a x^), and sigma is the
    root of mean(x^2).
    """
    scaled = head * weight
    scaled = scaled - (probabilities[..., None] * scaled).sum(dim=-2, keepdim=True)
    if centred:
        residual = residual - residual.mean(dim=-1, keepdim=True)
        scaled = scaled - scaled.mean(dim=-1, keepdim=True)
    inverse = (residual.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    normed = (residual * inverse)[..., None, :]
    along = (scaled * normed).mean(dim=-1, keepdim=True)
    return (scaled - normed * along) * inverse[..., None]


def logit_variances(
    values: torch.Tensor, probabilities: torch.Tensor, directions: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """w_i^2 Var_{v ~ p}(v_i . g_v) of every parameter token, [..., n]: v [n, d] or [..., n, d], p [..., k],
    g [..., k, d], w [..., n].

    Any MLP's hidden units may stand for the tokens: their activations for w, the rows of its second matrix for v.
    """
    moves = directions @ values.transpose(-1, -2)  # [..., k, n]
    return weights.square() * (probabilities[..., None] * moves.square()).sum(dim=-2)
