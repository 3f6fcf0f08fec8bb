"""vLLM's entry point `vllm.general_plugins`: makes `model_type: tokenformer` known in every vLLM process."""

from __future__ import annotations

ARCHITECTURE = "TokenformerForCausalLM"
WORKER_CLASS = "model_impl.engine.worker.TokenformerWorker"
"""The value of vLLM's `worker_cls` option that makes it report token statistics."""

SCHEDULER_CLASS = "model_impl.engine.scheduler.HoldingScheduler"
"""The value of its `scheduler_cls` option that makes it send them in batches."""


def register() -> None:
    """Register configuration and model; vLLM calls this several times per process, so it may be repeated.

    The model is named by a string: importing it here would start CUDA in processes that must not.
    """
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from model_impl import cuda_packages
    from model_impl.engine import grammar_cache, log_filter, prefix_reuse
    from model_impl.hf_config import HuggingFaceConfig

    AutoConfig.register(HuggingFaceConfig.model_type, HuggingFaceConfig, exist_ok=True)
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"model_impl.model.tokenformer:{ARCHITECTURE}")
    for overrides in (cuda_packages, grammar_cache, log_filter, prefix_reuse):
        overrides.install()  # here, as the engine core loads plugins and nothing else of ours
