"""vLLM's linear layers and heads on CPU, on weights that our products also read (model_impl/kernels/cpu/weights.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from model_impl.kernels.cpu.weights import pack
from model_impl.override import override_class


class PackedLinear(UnquantizedLinearMethod):
    def process_weights_after_loading(self, layer: Any) -> None:
        if not packed(layer):
            super().process_weights_after_loading(layer)


class PackedHead(UnquantizedEmbeddingMethod):
    """The head's method; the weight of an embedding that the head is tied to stays as it is."""

    def process_weights_after_loading(self, layer: Any) -> None:
        if not packed(layer):
            super().process_weights_after_loading(layer)


class LookedUp(UnquantizedEmbeddingMethod):
    """Leaves an embedding unpacked, which vLLM would pack although nothing is multiplied by it."""

    def process_weights_after_loading(self, layer: Any) -> None:
        pass


def packed(layer: Any) -> bool:
    """Make the layer multiply by a packed weight and drop the loaded one; False if nothing was done."""
    weight = pack(layer.weight)
    if weight is not None:
        layer.cpu_linear = weight
        layer.weight = torch.nn.Parameter(layer.weight.new_empty(0), requires_grad=False)
    return weight is not None


def pack_when_loaded(layer: torch.nn.Module) -> None:
    """Make the layer pack its weight after loading; quantised layers stay as they are."""
    replace_method(layer, {UnquantizedLinearMethod: PackedLinear, UnquantizedEmbeddingMethod: PackedHead})


def leave_unpacked(embedding: torch.nn.Module) -> None:
    replace_method(embedding, {UnquantizedEmbeddingMethod: LookedUp})


def replace_method(layer: Any, methods: Mapping[type, type]) -> None:
    if (method := methods.get(type(layer.quant_method))) is not None:
        override_class(layer.quant_method, method)
