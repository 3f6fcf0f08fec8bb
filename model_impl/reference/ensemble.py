"""The parameter-token ensemble: one model, many members, each with a few parameter tokens masked.

Member k leaves out a fixed random few per cent of the parameter tokens (of the output projections and feed-forwards,
unless the checkpoint says otherwise). Their weights become zero, after the row norm and with tau kept. Members differ
from the position that predicts the answer's first token on, which is the prompt's last. The positions before it are the
plain model's, keys and values included, so all members share them. Where the members agree, certainty or doubt comes
from the whole model (aleatoric). Where they disagree, the answer depends on few tokens (epistemic), as it does where
nothing was stored and the model interpolates. The method is Monte Carlo dropout (Gal and Ghahramani 2016) on parameter
tokens instead of hidden units, split by the mutual information of Depeweg et al. (2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import shake_256

import numpy as np
import torch

from model_impl.reference.model import Pattention, ReferenceTokenformer

MAX_MEMBERS = 64


def token_mask(member: int, layer: int, projection: str, counts: Sequence[int], rate: float) -> torch.Tensor:
    """Which tokens member number `member` keeps: bool [sum(counts)], `counts` being the tokens per growth stage."""
    kept = [stage_mask(member, layer, projection, stage, count, rate) for stage, count in enumerate(counts)]
    return torch.cat(kept)


def stage_mask(member: int, layer: int, projection: str, stage: int, count: int, rate: float) -> torch.Tensor:
    """Which tokens of one growth stage (number) a member keeps: bool [count], True with probability 1 - rate.

    The bits are a hash of the place, so they are the same on every machine and in every version, and do not depend on
    the stages that come later.
    """
    digest = shake_256(f"{member}/{layer}/{projection}/{stage}".encode()).digest(4 * count)
    return torch.from_numpy(np.frombuffer(digest, "<u4") >= round(rate * 2**32))


@contextmanager
def masked(
    model: ReferenceTokenformer,
    member: int,
    rows: torch.Tensor,
    rate: float | None = None,
    projections: Sequence[str] | None = None,
) -> Iterator[None]:
    """Make the reference model that member within the block, by default with its configuration's masks.

    rows bool [B, T] or [T]: the positions at which the member differs from the plain model.
    """
    rate = model.config.ensemble_rate if rate is None else rate
    projections = model.config.ensemble_projections or () if projections is None else projections
    counts = {name: [stage.tokens[name] for stage in model.config.stages] for name in projections}
    layers: Mapping[str, torch.nn.Module] = dict(model.named_modules())
    chosen = [(name, m) for name, m in layers.items() if isinstance(m, Pattention) and m.projection in projections]
    try:
        for name, module in chosen:
            layer = int(name.split(".")[1]) - 2
            keep = token_mask(member, layer, module.projection, counts[module.projection], rate)
            module.keep = (keep | ~rows[..., None]).to(module.key_param_tokens.device)
        yield
    finally:
        for _, module in chosen:
            module.keep = None


def decompose(mean_probabilities: torch.Tensor, mean_entropy: torch.Tensor) -> torch.Tensor:
    """From the members' mean distribution [..., V] and mean entropy [...] to float32 [..., 2]: epistemic, aleatoric.

    The entropy of the mixture is the sum of both: epistemic = H(mean p) - mean H(p_k) is the mutual information between
    token and member, aleatoric = mean H(p_k); nats.
    """
    total = torch.special.entr(mean_probabilities.float()).sum(dim=-1)
    return torch.stack([(total - mean_entropy).clamp_min(0.0), mean_entropy], dim=-1)


@torch.no_grad()
def ensemble_uncertainty(
    model: ReferenceTokenformer, input_ids: torch.Tensor, prompt: int, members: int, stage: int = -1
) -> torch.Tensor:
    """Epistemic and aleatoric uncertainty of the answers' tokens, nats: ids [B, T] -> float32 [B, T - prompt, 2].

    The answers follow prompts of `prompt` tokens, at least one.
    """
    rows = torch.arange(input_ids.shape[-1]) >= prompt - 1
    mean_probabilities, mean_entropy = torch.zeros(()), torch.zeros(())
    for member in range(members):
        with masked(model, member, rows):
            probabilities = model(input_ids, stage)[:, prompt - 1 : -1].softmax(dim=-1)
        mean_probabilities = mean_probabilities + probabilities / members
        mean_entropy = mean_entropy + torch.special.entr(probabilities).sum(dim=-1) / members
    return decompose(mean_probabilities, mean_entropy)
