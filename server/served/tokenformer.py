"""A Tokenformer checkpoint."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import (
    CheckpointError,
    check_tensors,
    check_values,
    iterate_tensors,
    load_config,
    tensor_shapes,
)
from model_impl.checkpoint.tokenizer import DEFAULT_CHAT_TEMPLATE, TOKENIZER, find_tokenizer, read_tokenizer
from model_impl.texts import TokenizedCheckpoint
from server.served.model import Capabilities, ServedModel


class TokenformerCheckpoint(ServedModel):
    capabilities = Capabilities(stages=True, deltas=True, growth=True, ensemble=True, trace=True, epistemic=True)
    parameters: int
    own_template: ClassVar[Path | None] = DEFAULT_CHAT_TEMPLATE

    def __init__(self, name: str) -> None:
        """Raises CheckpointError for tensors that are not those of the configuration."""
        super().__init__(name)
        self.directory = Path(name)
        self.config = load_config(name)
        shapes = tensor_shapes(name)
        check_tensors(self.config, shapes)
        self.parameters = sum(map(math.prod, shapes.values()))
        self.stages = [stage.name for stage in self.config.stages]
        self.servable = self.config.servable_stages
        self.longest = self.config.max_position_embeddings

    @property
    def served_name(self) -> str:
        return Path(self.name).resolve().name

    @property
    def stored_dtype(self) -> str | None:
        return self.config.dtype

    def check_tokenizer(self) -> None:
        if find_tokenizer(Path(self.name)) is None:
            raise CheckpointError(
                f"{self.name}: {TOKENIZER} is missing; copy it there, or name its directory by --tokenizer "
                "(`tokenformer convert --tokenizer` adds it to a converted checkpoint)"
            )
        read_tokenizer(Path(self.name))

    def check(self, args: Namespace) -> None:
        for name, tensor in iterate_tensors(self.name):
            check_values(self.config, name, tensor)
        if not (args.tokenizer or args.skip_tokenizer_init):
            self.check_tokenizer()

    def fingerprint(self, stage: int = -1) -> str:
        return fingerprint(self.name, stage)

    def tokenizer(self) -> Any:
        return TokenizedCheckpoint(Path(self.name)).tokenizer()

    def weight_bytes(self, args: Namespace) -> int:
        return self.parameters * (2 if args.dtype == "bfloat16" else 4)

    def cached_bytes(self, args: Namespace) -> int:
        from model_impl.model.block import cached_head_dim

        width = self.config.num_attention_heads * cached_head_dim(self.config.head_dim)
        return 2 * self.config.num_hidden_layers * width * (2 if args.dtype == "bfloat16" else 4)
