"""Uncertainty signals of an answer, all so that higher means less sure. Values in nats unless said otherwise.

Token signals are functions of the raw logits at the positions of an answer, [A, V], and of its tokens, [A].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from evals.answers import Answer
from model_impl.kernels.statistics import token_statistics

Values = npt.NDArray[np.float64]

EVIDENCE = 10
"""Logits that LogTokU takes as evidence, as its authors do."""


def token_signals(logits: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Signals of each token, float64 [A], from the distribution that it was chosen from."""
    logits = logits.double()
    log_probs = logits.log_softmax(dim=-1)
    entropy, variance, margin = token_statistics(logits).double().unbind(-1)
    aleatoric, epistemic = logtoku(logits)
    return {
        "surprisal": -log_probs.gather(-1, tokens[:, None])[:, 0],
        "top_surprisal": -log_probs.max(dim=-1).values,
        "entropy": entropy,
        "variance": variance,
        "margin": -margin,
        "self_certainty": -self_certainty(log_probs),
        "logtoku_aleatoric": aleatoric,
        "logtoku_epistemic": epistemic,
        "logtoku": aleatoric * epistemic,
        "logit": -logits.gather(-1, tokens[:, None])[:, 0],
        "logsumexp": -logits.logsumexp(dim=-1),
    }


def self_certainty(log_probs: torch.Tensor) -> torch.Tensor:
    """KL(uniform || p) = -ln V - mean ln p over the vocabulary (Kang et al. 2025), [..., V] -> [...]."""
    return -math.log(log_probs.shape[-1]) - log_probs.mean(dim=-1)


def logtoku(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Aleatoric and epistemic uncertainty of LogTokU (Ma et al. 2025), [..., V] -> two of [...].

    The positive parts of the ten highest logits are taken as evidence alpha of a Dirichlet distribution, alpha_0 their
    sum: AU = -sum alpha_k / alpha_0 (psi(alpha_k + 1) - psi(alpha_0 + 1)), EU = K / sum(alpha_k + 1).
    """
    alpha = logits.topk(min(EVIDENCE, logits.shape[-1]), dim=-1).values.clamp_min(0.0)
    total = alpha.sum(dim=-1, keepdim=True)
    share = alpha / total.clamp_min(torch.finfo(logits.dtype).tiny)
    aleatoric = -(share * (torch.digamma(alpha + 1) - torch.digamma(total + 1))).sum(dim=-1)
    return aleatoric, alpha.shape[-1] / (alpha + 1).sum(dim=-1)


def answer_signals(tokens: Mapping[str, torch.Tensor], span: slice) -> dict[str, float]:
    """The answer's signals from those of its tokens; `span` are the positions of the value, which alone can be wrong.

    `_first` is the value's first token, `_max` the highest within the value, `_mean` the mean over the whole answer.
    """
    found = {
        "max_probability": float(tokens["top_surprisal"][span].max()),
        "perplexity": float(tokens["surprisal"].mean()),
        "sequence_probability": float(tokens["surprisal"].sum()),
    }
    for name in ("entropy", "variance", "margin", "self_certainty", "logtoku", "logsumexp"):
        found |= {
            f"{name}_first": float(tokens[name][span][0]),
            f"{name}_max": float(tokens[name][span].max()),
            f"{name}_mean": float(tokens[name].mean()),
        }
    found["entropy_last"] = float(tokens["entropy"][span][-1])
    for name in ("logtoku_aleatoric", "logtoku_epistemic", "top_surprisal"):  # only one position uses these
        found[f"{name}_first"] = float(tokens[name][span][0])
    return found


def agreement_signals(answer: Sequence[int], mean_logit: float, samples: Sequence[Answer]) -> dict[str, float]:
    """Agreement of sampled answers with each other and with the greedy one; equal answers are one semantic cluster.

    Semantic entropy (Kuhn et al. 2023) with exact match; `disagreement`, the share of samples that differ from the
    answer; and semantic energy (Ma et al. 2025): minus the mean raw logit of the tokens of the answer's cluster, as a
    share of all answers drawn. The cluster of an answer that no sample repeats is the answer alone.
    """
    total = sum(sample.count for sample in samples)
    shares = np.array([sample.count / total for sample in samples])
    same = [sample for sample in samples if sample.tokens == tuple(answer)]
    count = sum(sample.count for sample in same)
    energy = -(mean_logit + sum(sample.count * sample.mean_logit for sample in same)) / (total + 1)
    return {
        "semantic_entropy": float(-(shares * np.log(shares)).sum()),
        "disagreement": 1 - count / total,
        "semantic_energy": energy,
    }


def rank_sum(*signals: Values) -> Values:
    """Mean of the signals' ranks scaled to [0, 1]; equal values share their mean rank. Needs no labels."""
    return np.mean([ranks(signal) / len(signal) for signal in signals], axis=0)


def ranks(values: Values) -> Values:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Values = (last - (counts - 1) / 2)[place]
    return mean
