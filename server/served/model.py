"""A model to be served, before there is an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

BASE = "base"
"""The stage of a model that never grew."""


@dataclass(frozen=True)
class Capabilities:
    """Features of a model beside tokens with statistics. A request for one that it lacks is refused."""

    stages: bool
    """Growth stages, each a model of its own."""
    deltas: bool
    """Growth deltas can be loaded on top."""
    growth: bool
    """Tokens tell what each growth stage adds to them."""
    ensemble: bool
    """The parameter-token ensemble."""
    trace: bool
    """POST /v1/trace."""
    epistemic: bool
    """Tokens tell their epistemic uncertainty."""

    def as_dict(self) -> dict[str, bool]:
        return asdict(self)


ONLY_TOKENFORMERS = {
    "deltas": "Growth deltas add parameter tokens, which only a Tokenformer has.",
    "ensemble": "`uncertainty.ensemble` masks parameter tokens, which only a Tokenformer has.",
    "trace": "A trace shows parameter tokens, which only a Tokenformer has.",
}
"""Why another model lacks a feature."""


class ServedModel(ABC):
    """Raises CheckpointError, in one line, wherever the model turns out not to be servable."""

    capabilities: Capabilities
    stages: Sequence[str]
    """The names of all growth stages."""
    servable: Sequence[int] = (0,)
    """The indexes of those that can be served alone; the last is that of the model itself."""
    directory: Path | None
    """None for one that lies on the Hub."""
    parameters: float
    """Their number; infinite where it is not known before vLLM loads them."""
    longest: int
    """The largest number of tokens of a request."""
    own_template: ClassVar[Path | None] = None
    """The chat template for a tokenizer without one; None for vLLM's, which refuses chats then."""

    def __init__(self, name: str) -> None:
        self.name = name
        """As the user gave it: a directory or a Hub id."""

    @property
    @abstractmethod
    def served_name(self) -> str:
        """The model's name where the user gives none."""

    @property
    @abstractmethod
    def stored_dtype(self) -> str | None:
        """The dtype of the weights."""

    @abstractmethod
    def check_tokenizer(self) -> None:
        """Raise CheckpointError if the model comes without a tokenizer. Needs no vLLM."""

    @abstractmethod
    def check(self, args: Namespace) -> None:
        """Raise CheckpointError for what would fail deep inside the engine. vLLM has been imported."""

    @abstractmethod
    def fingerprint(self, stage: int = -1) -> str:
        """The identity of what the model computes with its stages up to `stage`."""

    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer of the library transformers."""

    def settings(self, *, cpu: bool) -> dict[str, object]:
        """Values of vLLM's flags for this kind of model, where the user gives none."""
        return {}

    def weight_bytes(self, args: Namespace) -> int:
        """Bytes that the weights will take, as far as that is known."""
        return 0

    @abstractmethod
    def cached_bytes(self, args: Namespace) -> int:
        """Bytes that the KV cache holds of one token."""

    def cpu_dtype(self) -> str:
        """bfloat16 for bfloat16 weights on a processor that multiplies bfloat16; otherwise float32, which is exact.

        Rounding float16 weights to bfloat16 would move logits about ten times as far as float16 itself does.
        """
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bfloat16" if self.stored_dtype == "bfloat16" and native else "float32"
