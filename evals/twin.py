"""The control: an ordinary transformer of the same size, depth, width, vocabulary, data and recipe as the demo model.

"Because it is a Tokenformer" is a claim about the difference to this model. Everything but the projections is the
reference's own: LayerNorm, rotary attention, residuals, tied head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from evals.world.training import Run
from model_impl.config import PROJECTIONS, TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer


class Linear(nn.Module):
    """One projection d -> d without bias, instead of a Pattention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))

    def forward(self, x: torch.Tensor, stage: int = -1) -> torch.Tensor:
        return F.linear(x, self.weight)


class Mlp(nn.Module):
    """y = GELU(x K^T) V without biases: hidden units [hidden, d] instead of a Pattention's parameter tokens."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(hidden, width))
        self.values = nn.Parameter(torch.empty(hidden, width))
        self.keep: torch.Tensor | None = None  # bool [..., T, hidden], set by `evals.members.dropout`

    def forward(self, x: torch.Tensor, stage: int = -1) -> torch.Tensor:
        hidden = F.gelu(F.linear(x, self.keys))
        return (hidden if self.keep is None else hidden * self.keep) @ self.values


class Twin(ReferenceTokenformer):
    """Linear attention projections, and an MLP whose hidden size makes up the Tokenformer's parameter count."""

    def __init__(self, config: TokenformerConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        tokens = 2 * sum(config.token_count(projection) for projection in PROJECTIONS)  # rows of [d], keys and values
        hidden = (tokens - 4 * width) // 2
        for i in range(config.num_hidden_layers):
            block = self.get_submodule(f"sequential.{i + 2}")
            attention = block.get_submodule("attention")
            for name in ("query", "key", "value", "proj"):
                setattr(attention, name, Linear(width))
            block.mlp = Mlp(width, hidden)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As the Tokenformer's: N(0, 0.02), and 2 / (L sqrt(d)) for what feeds the residual."""
        for name, parameter in self.named_parameters():
            if "norm" not in name:
                nn.init.normal_(parameter, std=0.02)
        residual_std = 2 / (self.config.num_hidden_layers * self.config.hidden_size**0.5)
        for name, parameter in self.named_parameters():
            if name.endswith(("proj.weight", "mlp.values")):
                nn.init.normal_(parameter, std=residual_std)


class TwinRun(Run):
    """A world's training run for a twin."""

    def new_model(self) -> Twin:
        return Twin(super().new_model().config)
