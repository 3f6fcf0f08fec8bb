"""A random model whose words are bytes, so that it has text: stop strings, grammars, broken UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer
from tests.conformance.models import ODD, random_weights, stage

END = 256


def byte_tokenizer() -> bytes:
    """tokenizer.json: 256 bytes and the end-of-text id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    assert tokenizer.token_to_id("<|end|>") == END
    return bytes(tokenizer.to_str(), "utf-8")


def text_files() -> dict[str, bytes]:
    """The files beside the weights of a model whose words are bytes, without an end of text."""
    settings = b'{"tokenizer_class": "PreTrainedTokenizerFast"}'
    return {"tokenizer.json": byte_tokenizer(), "tokenizer_config.json": settings}


def write_bytes_model(path: Path, **changes: Any) -> ReferenceTokenformer:
    """Write the checkpoint `path`; the returned reference has the same weights."""
    defaults: dict[str, Any] = {
        "vocab_size": 257,
        "padded_vocab_size": 320,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 192,
        "eos_token_id": END,
        "growth_stages": [stage("base", ODD)],
    }
    config = TokenformerConfig(**(defaults | changes))
    weights = random_weights(config)
    settings = b'{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}'
    files = {"tokenizer.json": byte_tokenizer(), "tokenizer_config.json": settings}
    write_checkpoint(path, config, weights.items(), files)
    model = ReferenceTokenformer(config)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
