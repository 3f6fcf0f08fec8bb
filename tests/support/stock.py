"""Tiny random models of other architectures, with words that are bytes, and what transformers computes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)
from transformers.pytorch_utils import Conv1D

from model_impl.stock import counted_blocks
from tests.support.bytes_model import END, byte_tokenizer
from tests.support.exact import exact_statistics

VOCABULARY, CONTEXT = 257, 192
RATE, WORDS, STRONGEST = 0.03, 16, 64

ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": END}
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,  # more units than are counted
    "num_attention_heads": 2,  # of 32, the least that vLLM serves on CPU
    "max_position_embeddings": CONTEXT,
    **ENDS,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 1, "head_dim": 32}

LATE: dict[str, Any] = {"num_hidden_layers": 4}
"""Both counted blocks are among them."""

MODELS: dict[str, tuple[type[PreTrainedModel], type[Any], dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, SIZES | GROUPED | {"num_hidden_layers": 3, "tie_word_embeddings": True}),
    # As in the real ones, there are more words than the tokenizer knows.
    "qwen3": (
        Qwen3ForCausalLM,
        Qwen3Config,
        SIZES | GROUPED | {"num_hidden_layers": 2, "vocab_size": 272, "tie_word_embeddings": False},
    ),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, SIZES | LATE),
    "mistral": (MistralForCausalLM, MistralConfig, SIZES | GROUPED | LATE),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, SIZES | LATE | {"num_key_value_heads": 1}),
    "gemma": (GemmaForCausalLM, GemmaConfig, SIZES | GROUPED | LATE),
    "phi": (PhiForCausalLM, PhiConfig, SIZES | LATE | {"partial_rotary_factor": 0.5}),
    "phi3": (Phi3ForCausalLM, Phi3Config, SIZES | LATE | {"num_key_value_heads": 1}),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config, SIZES | LATE | {"num_key_value_heads": 1}),
    "starcoder2": (Starcoder2ForCausalLM, Starcoder2Config, SIZES | LATE | {"num_key_value_heads": 1}),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config,
        {"vocab_size": VOCABULARY, "n_embd": 64, "n_head": 2, "n_layer": 4, "n_inner": 96, "n_positions": CONTEXT}
        | ENDS,
    ),
}

DOWNS = ("down_proj", "dense_4h_to_h", "c_proj", "fc2")
NORMS = ("norm", "final_layer_norm", "final_layernorm", "ln_f")

CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def write_stock_model(path: Path, name: str) -> PreTrainedModel:
    """Write the checkpoint `path` of a random model in float32; the returned one, in float64, has the same weights."""
    torch.manual_seed(sorted(MODELS).index(name))
    kind, config, settings = MODELS[name]
    model = kind(config(**settings))
    for weight in model.parameters():  # those of a new model make all words about equally likely
        weight.data = torch.randn_like(weight) * (1 if weight.ndim == 1 else 2 * weight.shape[-1] ** -0.5)
    model.save_pretrained(path)
    (path / "tokenizer.json").write_bytes(byte_tokenizer())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "chat_template": CHAT_TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return model.double().eval().requires_grad_(False)


@dataclass(frozen=True)
class Expected:
    """Numbers that transformers gives the tokens of a text but the first, in float64."""

    logprobs: torch.Tensor
    """[T - 1]."""
    statistics: torch.Tensor
    """[T - 1, 3], as `exact_statistics`."""
    epistemic: torch.Tensor
    """[T - 1]."""

    def __getitem__(self, part: slice) -> Expected:
        return Expected(self.logprobs[part], self.statistics[part], self.epistemic[part])


def expected(model: PreTrainedModel, ids: Sequence[int]) -> Expected:
    """The numbers of the text `ids`."""
    text = torch.tensor([ids])
    blocks = named(model.base_model, ("layers", "h"))
    downs = [named(block.mlp, DOWNS) for block in blocks]
    norm = named(model.base_model, NORMS)
    head = model.get_output_embeddings()
    inputs: dict[nn.Module, torch.Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[torch.Tensor]) -> None:
        inputs[module] = arguments[0][0, :-1]

    hooks = [module.register_forward_pre_hook(keep) for module in (*downs, norm)]
    # Not `model(text)`: to serve GPT-NeoX in this process, vLLM has overridden `__call__` of transformers' own class.
    logits = head(model.base_model.forward(text).last_hidden_state)[0, :-1]
    for hook in hooks:
        hook.remove()
    counted = [(inputs[downs[i]], output_by_unit(downs[i])) for i in counted_blocks(len(downs))]
    spread = [
        sum(units_spread(lambda x: head(norm(x)), row, weights[i], down) for weights, down in counted)
        for i, row in enumerate(inputs[norm])
    ]
    log_p = logits.log_softmax(-1).gather(-1, text[0, 1:, None])[:, 0]
    return Expected(log_p, exact_statistics(logits), RATE * (1 - RATE) / 2 * torch.stack(spread))


def named(module: Any, names: Sequence[str]) -> Any:
    """The part of a module that has one of these names."""
    return next(getattr(module, name) for name in names if hasattr(module, name))


def output_by_unit(down: Any) -> torch.Tensor:
    """The weight of a down projection [d, n]."""
    weight: torch.Tensor = down.weight
    return weight.T if isinstance(down, Conv1D) else weight


def units_spread(
    logits_of: Callable[[torch.Tensor], torch.Tensor], residual: torch.Tensor, units: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """Sum over the strongest units i of w_i^2 Var_{v ~ p}(V_i . g_v): residual stream [d], units w [n], down [d, n].
    g_v is the derivative of v's logit itself."""
    likeliest = logits_of(residual).topk(WORDS)
    gradients = torch.func.jacrev(logits_of)(residual)[likeliest.indices]  # [k, d]
    strongest = units.abs().topk(min(STRONGEST, len(units))).indices
    moves = gradients @ down[:, strongest]  # [k, n]
    p = likeliest.values.softmax(-1)[:, None]
    variances = (p * (moves - (p * moves).sum(0)).square()).sum(0)
    return (units[strongest].square() * variances).sum()
