"""A stand-in for a released checkpoint: its file names, the official names and keys, and random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from model_impl.checkpoint.tokenizer import NEOX_END_OF_TEXT
from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig
from tests.conformance.models import random_weights

YML = """{{
  "pipe_parallel_size": 1,
  "model_parallel_size": 1,

  "num_layers": {layers},
  "hidden_size": {width},
  "num_attention_heads": {heads},
  "qkv_slot_num": {width},
  "proj_slot_num": {width},
  "ffn_slot_num": {ffn},
  "seq_length": 2048,
  "max_position_embeddings": 2048,
  "pos_emb": "rotary",
  "rotary_pct": 0.25,
  "no_weight_tying": false,
  "norm": "layernorm_nonparam",
  "final_norm": "layernorm",
  "gpt_j_residual": false,
  "output_layer_parallelism": "column",
  "use_bias_in_attn_linear": false,

  "attention_config": [[["tokenformer"], {layers}]],
  "norm_activation_type": "l2_norm_gelu", # "l2_norm_gelu", "gelu_l2_norm", "softmax"

  "init_method": "normal",
  "output_layer_init_method": "wang_init",
  "optimizer": {{"type": "Adam", "params": {{"lr": 0.0006, "betas": [0.9, 0.95], "eps": 1.0e-8}}}},
  "fp16": {{"fp16": true, "enabled": true, "loss_scale": 0}},
  "eval_ckpt": "./TokenFormer-150M/pytorch_model.bin",
  "checkpoint_validation_with_forward_pass": False,
  "adlr_autoresume": True,

  "tokenizer-type": "HFTokenizer",
  "vocab-file": "./tokenizer.json", # from GPT-NeoX 20B

  "launcher": "slurm",
  "use_wandb": False,
}}
"""
"""The official file, without most of what concerns training alone."""


def write_release(directory: Path, layers: int = 2, width: int = 64, heads: int = 4, ids: int = 1000) -> None:
    """`ids` is the number of the tokenizer's ids, of which those of bytes are the first."""
    directory.mkdir(parents=True)
    tokens = dict.fromkeys(PROJECTIONS, width) | {"ffn": 4 * width}
    config = TokenformerConfig(
        vocab_size=ids,
        padded_vocab_size=-(-ids // 128) * 128,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        growth_stages=[GrowthStage("base", tokens).to_dict()],
    )
    weights = {name: tensor.half() for name, tensor in random_weights(config).items()}
    torch.save(weights, directory / "pytorch_model.bin")
    (directory / "150M_eval.yml").write_text(YML.format(layers=layers, width=width, heads=heads, ffn=4 * width))
    tokenizer(ids).save(str(directory / "tokenizer.json"))


def tokenizer(ids: int) -> Tokenizer:
    """Byte-level, as GPT-NeoX-20B's, with its end-of-text token as id 0, and numbered words after the bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({word: i for i, word in enumerate([NEOX_END_OF_TEXT, *alphabet])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(NEOX_END_OF_TEXT)])
    made.add_tokens([AddedToken(f" word{i}") for i in range(made.get_vocab_size(), ids)])
    return made
