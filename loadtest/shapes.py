"""Checkpoints with random weights in the released sizes, and the GPT-NeoX of the same size beside each of them.

Their cost depends on their shapes alone. They lie below loadtest/runs and are written once.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from model_impl.checkpoint.reading import expected_tensors
from model_impl.checkpoint.writing import all_or_nothing, write_checkpoint
from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig

RUNS = Path(__file__).parent / "runs"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
WORDS = 50277


@dataclass(frozen=True)
class Shape:
    """A Tokenformer by its sizes; `ffn` and `others` count the parameter tokens of the projections."""

    name: str
    layers: int
    width: int
    heads: int
    others: int
    ffn: int
    stages: int = 1
    """The number of equal parts of the tokens, each a growth stage with a norm of its own."""

    @property
    def tokens(self) -> int:
        """Parameter tokens of one block."""
        return 4 * self.others + self.ffn

    def config(self, dtype: torch.dtype = torch.float32) -> TokenformerConfig:
        counts = {name: self.ffn if name == "ffn" else self.others for name in PROJECTIONS}
        parts = {name: count // self.stages for name, count in counts.items()}
        assert all(parts[name] * self.stages == count for name, count in counts.items())
        stages = [GrowthStage(f"stage-{i}", parts, norm_group=i) for i in range(self.stages)]
        return TokenformerConfig(
            vocab_size=WORDS,
            padded_vocab_size=50304,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            growth_stages=[stage.to_dict() for stage in stages],
            dtype=str(dtype).removeprefix("torch."),
        )

    def checkpoint(self, dtype: torch.dtype = torch.float32) -> Path:
        """The directory of its checkpoint; written if it is not there."""
        suffix = "" if dtype == torch.float32 else f"-{str(dtype).removeprefix('torch.')}"
        path = RUNS / f"{self.name}-x{self.stages}{suffix}"
        if not path.exists():
            config = self.config(dtype)
            torch.manual_seed(0)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            tensors = (
                (name, (torch.randn(shape, device=device) * 0.05).to("cpu", dtype))
                for name, shape in expected_tensors(config).items()
            )
            write_checkpoint(path, config, tensors, tokenizer_files())
        return path

    def neox_config(self) -> GPTNeoXConfig:
        """A GPT-NeoX of the same depth, width, heads, vocabulary and weights per block, which lie in its feed-forward:
        4 d^2 in attention and 2 d ff there are the 2 d n of n parameter tokens."""
        return GPTNeoXConfig(
            vocab_size=WORDS,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.tokens - 2 * self.width,
            rotary_pct=0.25,
            max_position_embeddings=2048,
            use_parallel_residual=False,
            tie_word_embeddings=True,
            eos_token_id=0,
            architectures=["GPTNeoXForCausalLM"],
            dtype=torch.float32,
        )

    def neox(self, weights: bool = True) -> Path:
        """The directory of its checkpoint, float32; written if it is not there. Without weights, vLLM has to be told
        `--load-format dummy`."""
        path = RUNS / f"{self.name}-neox{'' if weights else '-dummy'}"
        if not path.exists():
            torch.manual_seed(0)
            config = self.neox_config()
            with all_or_nothing(path) as partial:
                (GPTNeoXForCausalLM(config) if weights else config).save_pretrained(partial)
                for name, content in tokenizer_files().items():
                    (partial / name).write_bytes(content)
        return path


SHAPES = {
    "150M": Shape("150M", 12, 768, 12, 768, 3072),
    "450M": Shape("450M", 24, 1024, 16, 1024, 4096),
}
"""The released sizes that fit a small machine."""

GPU_SHAPES = {**SHAPES, "1.5B": Shape("1.5B", 40, 1536, 16, 1536, 6144)}


@cache
def tokenizer_files() -> dict[str, bytes]:
    """A tokenizer of as many words as the released models' has, each of them text that it reads back as one token."""
    words = {"<|endoftext|>": 0} | {f"w{i}": i for i in range(1, WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save(f"{directory}/tokenizer.json")
        content = (Path(directory) / "tokenizer.json").read_bytes()
    entries = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": 2048,
    }
    return {"tokenizer.json": content, "tokenizer_config.json": json.dumps(entries).encode()}
