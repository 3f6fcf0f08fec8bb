"""Tokenformers for transformers: importing this package makes `model_type: tokenformer` known to its Auto classes.

vLLM's processes never import it: they need the configuration only (`model_impl.hf_config`).
"""

from transformers import AutoConfig, AutoModelForCausalLM

from model_impl.hf_config import HuggingFaceConfig
from model_impl.huggingface.model import TokenformerForCausalLM

AutoConfig.register(HuggingFaceConfig.model_type, HuggingFaceConfig, exist_ok=True)
AutoModelForCausalLM.register(HuggingFaceConfig, TokenformerForCausalLM, exist_ok=True)

__all__ = ["HuggingFaceConfig", "TokenformerForCausalLM"]
