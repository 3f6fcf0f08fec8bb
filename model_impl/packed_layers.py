"""vLLM's linear layers and heads on CPU with weights that our products read as well (model_impl/packed_weight.py)."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from model_impl.packed_weight import pack
from model_impl.specialise import specialise


class PackedLinear(UnquantizedLinearMethod):
    def process_weights_after_loading(self, layer: Any) -> None:
        packed = pack(layer.weight)
        if packed is None:
            super().process_weights_after_loading(layer)
            return
        layer.cpu_linear = packed
        layer.weight = torch.nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


class PackedHead(UnquantizedEmbeddingMethod):
    """Keeps the weight as it is beside the packed one, as vLLM does: embeddings that it is tied to look up in it."""

    def process_weights_after_loading(self, layer: Any) -> None:
        layer.cpu_linear = pack(layer.weight)
        if layer.cpu_linear is None:
            super().process_weights_after_loading(layer)


def pack_when_loaded(layer: torch.nn.Module) -> None:
    """Quantised layers stay as they are."""
    for method in (PackedLinear, PackedHead):
        if type(layer.quant_method) is method.__base__:
            specialise(layer.quant_method, method)
