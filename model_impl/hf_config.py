"""The configuration as vLLM and transformers read it."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from model_impl.config import TokenformerConfig


@strict
class HuggingFaceConfig(PreTrainedConfig, TokenformerConfig):
    """A `TokenformerConfig` whose `dtype` is PyTorch's."""

    model_type: ClassVar[str] = TokenformerConfig.model_type

    dtype: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        TokenformerConfig.__post_init__(self)
        PreTrainedConfig.__post_init__(self, **kwargs)
