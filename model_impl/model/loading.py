"""From tensors under their official names to the parameters of the model on vLLM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from model_impl.checkpoint.delta import GrowthDelta
from model_impl.checkpoint.grow import token_tensor
from model_impl.checkpoint.reading import CheckpointError, check_values, expected_tensors
from model_impl.config import TokenformerConfig
from model_impl.model.pattention import ParallelPattention

PATTENTION_OF = {
    "query": "attention.qkv",
    "key": "attention.qkv",
    "value": "attention.qkv",
    "output": "attention.output",
    "ffn": "ffn",
}
"""Projection -> the module of a block that computes it."""


def load_official(
    model: nn.Module, config: TokenformerConfig, layers: range, weights: Iterable[tuple[str, torch.Tensor]]
) -> set[str]:
    """Fill the parameters of a `TokenformerForCausalLM`, whose pipeline rank has these layers; returns their names.

    Raises CheckpointError for a missing, surplus or wrongly shaped tensor and for what `check_values` refuses.
    """
    expected = expected_tensors(config)
    parameters = dict(model.named_parameters())
    seen: set[str] = set()
    loaded: set[str] = set()
    for name, tensor in weights:
        if name not in expected:
            raise CheckpointError(f"surplus tensor {name}")
        if tuple(tensor.shape) != tuple(expected[name]):
            raise CheckpointError(f"tensor {name} has shape {list(tensor.shape)}, not {list(expected[name])}")
        check_values(config, name, tensor)
        seen.add(name)
        loaded |= _load_tensor(model, config, layers, name, tensor, parameters)
    if missing := sorted(expected.keys() - seen):
        raise CheckpointError(f"missing tensor {missing[0]}")
    return loaded


def _load_tensor(
    model: nn.Module,
    config: TokenformerConfig,
    layers: range,
    name: str,
    tensor: torch.Tensor,
    parameters: dict[str, nn.Parameter],
) -> set[str]:
    """Route one official tensor; tensors of other pipeline ranks fill nothing."""
    _, number, rest = name.split(".", 2)
    index = int(number) - 2
    if int(number) == 0:
        return _fill("model.embed_tokens.weight", tensor[: config.vocab_size], parameters)
    if index == config.num_hidden_layers + 1:
        return _fill(f"model.{rest}", tensor, parameters)
    if index == config.num_hidden_layers + 2:
        return _fill("lm_head.weight", tensor[: config.vocab_size], parameters)
    if index not in layers:
        return set()
    prefix = f"model.layers.{index}"
    role = token_tensor(name)
    if role is None:
        return _fill(f"{prefix}.{rest}", tensor, parameters)
    module = f"{prefix}.{PATTENTION_OF[role[0]]}"
    pattention = cast(ParallelPattention, model.get_submodule(module))
    return {f"{module}.{pattention.load_tokens(*role, tensor)}"}


def _fill(name: str, tensor: torch.Tensor, parameters: dict[str, nn.Parameter]) -> set[str]:
    if name not in parameters:
        return set()
    parameter = parameters[name]
    loader = getattr(parameter, "weight_loader", None)
    if loader is None:
        parameter.data.copy_(tensor)
    else:
        loader(parameter, tensor)
    return {name}


def delta_tokens(delta: GrowthDelta) -> dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]:
    """(layer, projection) -> the delta's key and value tokens [m, d]."""
    parts: dict[tuple[int, str, str], torch.Tensor] = {}
    for name, tensor in delta.tensors():
        projection, part = cast(tuple[str, str], token_tensor(name))
        parts[int(name.split(".")[1]) - 2, projection, part] = tensor
    keys = [place[:2] for place in parts if place[2] == "key"]
    return {(layer, name): (parts[layer, name, "key"], parts[layer, name, "value"]) for layer, name in keys}
