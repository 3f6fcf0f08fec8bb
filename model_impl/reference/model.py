"""The whole Tokenformer in plain PyTorch: the oracle of the tests and the model of the training recipe.

Its state dict has the official tensor names, so official weights load as they are. No KV cache, no parallelism:
every call recomputes the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model_impl.checkpoint.reading import check_values, iterate_tensors, load_config
from model_impl.config import READING_OUT, TokenformerConfig
from model_impl.reference.pattention import pattention

Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Attention of queries over keys and values, all [B, heads, T, head_dim], after rotary; the result has their shape."""

Tables = tuple[torch.Tensor, torch.Tensor]
"""cos and sin of the rotary angles."""


def causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)  # scale 1/sqrt(head_dim)


class Pattention(nn.Module):
    """One projection d -> d: key and value tokens [n, d]."""

    def __init__(self, config: TokenformerConfig, projection: str) -> None:
        super().__init__()
        shape = (config.token_count(projection), config.hidden_size)
        self.config, self.projection = config, projection
        self.keep: torch.Tensor | None = None  # bool [..., T, n], set by `model_impl.reference.ensemble.masked`
        self.key_param_tokens = nn.Parameter(torch.empty(shape))
        self.value_param_tokens = nn.Parameter(torch.empty(shape))

    def forward(self, x: torch.Tensor, stage: int = -1) -> torch.Tensor:
        groups = self.config.norm_groups(self.projection, stage)
        keys, values = self.key_param_tokens, self.value_param_tokens
        return pattention(x, keys, values, groups, self.config.norm_activation_type, self.keep)


class Attention(nn.Module):
    """Causal multi-head attention whose four projections are Pattention; `proj` is the official name of `output`."""

    def __init__(self, config: TokenformerConfig) -> None:
        super().__init__()
        self.config = config
        self.query = Pattention(config, "query")
        self.key = Pattention(config, "key")
        self.value = Pattention(config, "value")
        self.proj = Pattention(config, "output")

    def forward(self, x: torch.Tensor, stage: int, rotary: Tables, mix: Mix = causal) -> torch.Tensor:
        batch, length, width = x.shape
        heads = (batch, length, self.config.num_attention_heads, self.config.head_dim)
        query = self.query(x, stage).view(heads).transpose(1, 2)  # [B, heads, T, head_dim]
        key = self.key(x, stage).view(heads).transpose(1, 2)
        value = self.value(x, stage).view(heads).transpose(1, 2)
        mixed = mix(rotate(query, *rotary), rotate(key, *rotary), value)
        output: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, width), stage)
        return output


class Block(nn.Module):
    """Pre-norm, sequential: x += attention(LN x), then x += ffn(LN x)."""

    def __init__(self, config: TokenformerConfig) -> None:
        super().__init__()
        affine, eps = config.affine_block_norms, config.layer_norm_eps
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps, elementwise_affine=affine)
        self.attention = Attention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps, elementwise_affine=affine)
        self.mlp = Pattention(config, "ffn")

    def forward(self, x: torch.Tensor, stage: int, rotary: Tables, mix: Mix = causal) -> torch.Tensor:
        x = x + self.attention(self.input_layernorm(x), stage, rotary, mix)
        x = x + self.mlp(self.post_attention_layernorm(x), stage)
        return x


class Embedding(nn.Module):
    def __init__(self, config: TokenformerConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.padded_vocab_size, config.hidden_size)


class FinalNorm(nn.Module):
    def __init__(self, config: TokenformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class Head(nn.Module):
    def __init__(self, config: TokenformerConfig) -> None:
        super().__init__()
        self.final_linear = nn.Linear(config.hidden_size, config.padded_vocab_size, bias=False)


class OfficialModules:
    """The modules of a Tokenformer under their official numbers: 0 embedding, 2.. blocks, L+3 norm, L+4 untied head."""

    config: TokenformerConfig
    sequential: nn.ModuleDict

    @staticmethod
    def build(config: TokenformerConfig) -> nn.ModuleDict:
        layers = config.num_hidden_layers
        modules: dict[str, nn.Module] = {"0": Embedding(config)}
        modules |= {str(i + 2): Block(config) for i in range(layers)}
        modules[str(layers + 3)] = FinalNorm(config)
        if not config.tie_word_embeddings:
            modules[str(layers + 4)] = Head(config)
        return nn.ModuleDict(modules)

    def embedding(self) -> nn.Embedding:
        return self.sequential.get_submodule("0.word_embeddings")  # type: ignore[return-value]

    def blocks(self) -> list[nn.Module]:
        return [self.sequential[str(i + 2)] for i in range(self.config.num_hidden_layers)]

    def final_norm(self) -> nn.LayerNorm:
        return self.sequential.get_submodule(f"{self.config.num_hidden_layers + 3}.norm")  # type: ignore[return-value]

    def head_weight(self) -> torch.Tensor:
        """[vocab_size, d]; the padding rows are left out."""
        if self.config.tie_word_embeddings:
            return self.embedding().weight[: self.config.vocab_size]
        head = self.sequential.get_submodule(f"{self.config.num_hidden_layers + 4}.final_linear")
        return head.get_parameter("weight")[: self.config.vocab_size]


class ReferenceTokenformer(OfficialModules, nn.Module):
    """Token ids in, logits out; `stage` picks an earlier growth stage (index) of the same weights."""

    def __init__(self, config: TokenformerConfig) -> None:
        super().__init__()
        self.config = config
        self.sequential = self.build(config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in self.modules():
            initialise(module)

    def hidden_states(self, input_ids: torch.Tensor, stage: int = -1) -> list[torch.Tensor]:
        """Output of every block for input_ids [B, T]: a list of L tensors [B, T, d]."""
        x, outputs = self.embedding()(input_ids), []
        rotary = rotary_tables(self.config, torch.arange(input_ids.shape[-1], device=input_ids.device))
        for block in self.blocks():
            x = block(x, stage, rotary)
            outputs.append(x)
        return outputs

    def forward(self, input_ids: torch.Tensor, stage: int = -1) -> torch.Tensor:
        """input_ids int64 [B, T] -> logits [B, T, vocab_size]; the embedding's padding rows are left out."""
        return F.linear(self.final_norm()(self.hidden_states(input_ids, stage)[-1]), self.head_weight())


def load_reference(checkpoint: Path) -> ReferenceTokenformer:
    """The checkpoint directory's model in float32, without gradients; raises CheckpointError if it cannot be used."""
    config, weights = load_config(checkpoint), {}
    for name, tensor in iterate_tensors(checkpoint):
        check_values(config, name, tensor)
        weights[name] = tensor.float()
    return with_weights(config, weights)


def with_weights(config: TokenformerConfig, weights: Mapping[str, torch.Tensor]) -> ReferenceTokenformer:
    """A model on these tensors, which are not copied, without gradients."""
    with torch.device("meta"):  # an initialisation would cost memory and time for nothing
        model = ReferenceTokenformer(config)
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def initialise(module: nn.Module) -> None:
    """The official initialisation of a module's own parameters; norms keep PyTorch's.

    It is N(0, 0.02), and the `wang` rule 2 / (L sqrt(d)) for what feeds the residual.
    """
    if isinstance(module, Pattention):
        residual_std = 2 / (module.config.num_hidden_layers * math.sqrt(module.config.hidden_size))
        nn.init.normal_(module.key_param_tokens, std=0.02)
        nn.init.normal_(module.value_param_tokens, std=residual_std if module.projection in READING_OUT else 0.02)
    elif isinstance(module, (nn.Embedding, nn.Linear)):
        nn.init.normal_(module.weight, std=0.02)


def rotary_tables(config: TokenformerConfig, positions: torch.Tensor) -> Tables:
    """cos and sin at positions [...], float32 [..., rotary_dim], half-split layout (Su et al. 2021)."""
    device = positions.device
    exponents = torch.arange(0, config.rotary_dim, 2, dtype=torch.float32, device=device) / config.rotary_dim
    angles = positions[..., None] * config.rope_theta**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first rotary_dim dimensions of x [..., T, head_dim]; the others pass through."""
    turned, passed = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned.to(x.dtype), passed), dim=-1)
