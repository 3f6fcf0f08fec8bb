"""An engine in the measuring process: without the cost of an API, and visible to a profiler."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.system.cores import prepare_openmp

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def take_openmp() -> None:
    """Restart this program with the server's OpenMP library, if it has another one: the library must precede torch."""
    before = os.environ.get("LD_PRELOAD")
    prepare_openmp()
    if os.environ.get("LD_PRELOAD") != before:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def start(checkpoint: Path, **options: Any) -> Any:
    """vLLM's offline engine with our worker; float32, and no prefix is found again unless `options` say otherwise."""
    from vllm import LLM

    from model_impl.override import override_class
    from model_impl.plugin import WORKER_CLASS
    from server.engine.statistics import install
    from server.engine.variants import VariantInput

    install()
    settings = {
        "dtype": "float32",
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "block_size": 32,
        "kv_cache_memory_bytes": 1 << 30,
        "max_num_seqs": 64,
        "enable_prefix_caching": False,
        "worker_cls": WORKER_CLASS,
    }
    llm = LLM(str(checkpoint), **(settings | options))
    override_class(llm.llm_engine.input_processor, VariantInput)
    llm.llm_engine.input_processor.dropped = set()
    return llm


def generate(
    llm: Any,
    batch: int,
    prompt_tokens: int,
    new_tokens: int,
    adapters: Sequence[int] = (0,),
    logprobs: int | None = None,
    **extra_args: bool,
) -> float:
    """Seconds that one batch takes, greedily; its requests take turns among the variants (0 is the last stage)."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    turns = [adapters[i % len(adapters)] for i in range(batch)]
    requests = [LoRARequest(f"stage {number}", number, "-") if number else None for number in turns]
    words = llm.llm_engine.model_config.hf_config.vocab_size
    prompts = [{"prompt_token_ids": [(7 * i + j) % words for j in range(prompt_tokens)]} for i in range(batch)]
    params = SamplingParams(
        temperature=0,
        max_tokens=new_tokens,
        logprobs=logprobs,
        ignore_eos=True,
        detokenize=False,
        extra_args=dict(extra_args) or None,
    )
    began = time.perf_counter()
    llm.generate(prompts, params, lora_request=requests, use_tqdm=False)
    return time.perf_counter() - began
