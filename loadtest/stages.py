"""What serving several growth stages from one copy costs, against serving the last stage alone.

    python -m loadtest.stages [--rounds 7] [--out loadtest/results/stages.json]

Both sides run in one engine process on the same batch shape, alternating; the ratio of the medians is the result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from loadtest import machine
from model_impl.checkpoint import expected_tensors
from model_impl.checkpoint_writer import write_checkpoint
from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig

BATCH, PROMPT_TOKENS, NEW_TOKENS = 16, 64, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("loadtest/results/stages.json"))
    arguments = parser.parse_args()
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as directory:
        several, alone = Path(directory) / "several", Path(directory) / "alone"
        write_grown(several, arguments.width, arguments.layers, retrained=False)
        write_grown(alone, arguments.width, arguments.layers, retrained=True)
        report = measure(several, alone, arguments.rounds)
    report |= {"command": "python -m " + " ".join(["loadtest.stages", *sys.argv[1:]]), "machine": machine.describe()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def write_grown(path: Path, width: int, layers: int, *, retrained: bool) -> None:
    """Random weights: a base of width tokens (4 width in the feed-forward) grown twice by a quarter.

    `retrained` makes the last stage the only servable one, with the very same tensors.
    """
    base = {name: width * (4 if name == "ffn" else 1) for name in PROJECTIONS}
    more = {name: count // 4 for name, count in base.items()}
    stages = [GrowthStage("base", base), GrowthStage("grown-1", more, norm_group=1)]
    stages.append(GrowthStage("grown-2", more, norm_group=2, retrained=retrained))
    config = TokenformerConfig(
        vocab_size=8192,
        padded_vocab_size=8192,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=512,
        eos_token_id=None,
        growth_stages=[stage.to_dict() for stage in stages],
        dtype=torch.float32,
    )
    torch.manual_seed(0)
    tensors = ((name, torch.randn(shape) * 0.05) for name, shape in expected_tensors(config).items())
    write_checkpoint(path, config, tensors, {})


def measure(several: Path, alone: Path, rounds: int) -> dict[str, Any]:
    engines, grown_by = {}, {}
    for name, checkpoint in {"warm-up": alone, "alone": alone, "several": several}.items():
        before = psutil.Process().memory_info().rss
        engine = start(checkpoint)
        if name == "warm-up":  # the first engine also brings in libraries
            stop(engine)
            continue
        engines[name] = engine
        run(engine, [""])
        grown_by[name] = psutil.Process().memory_info().rss - before
    sides: dict[str, tuple[str, Sequence[str]]] = {
        "last stage alone": ("alone", [""]),
        "last stage, others resident": ("several", [""]),
        "three stages mixed": ("several", ["", "base", "grown-1"]),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(rounds + 1):
        for name, (engine, stages) in sides.items():
            rate = run(engines[engine], stages)
            if round_number:  # the first round warms up
                rates[name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "batch": BATCH,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "output_tokens_per_second": {name: round(rate, 1) for name, rate in medians.items()},
        "of_last_stage_alone": {name: round(rate / medians["last stage alone"], 3) for name, rate in medians.items()},
        "process_grew_by_mib": {name: round(size / 2**20, 1) for name, size in grown_by.items()},
        "all_rounds": {name: [round(rate, 1) for rate in values] for name, values in rates.items()},
    }


def start(checkpoint: Path) -> Any:
    from vllm import LLM

    from model_impl.plugin import WORKER_CLASS
    from model_impl.specialise import specialise
    from server.engine import install
    from server.models import VariantInput

    install()
    llm = LLM(
        str(checkpoint),
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        kv_cache_memory_bytes=1 << 29,
        max_num_seqs=BATCH,
        enable_prefix_caching=False,
        worker_cls=WORKER_CLASS,
    )
    specialise(llm.llm_engine.input_processor, VariantInput)
    llm.llm_engine.input_processor.dropped = set()
    return llm


def stop(llm: Any) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def run(llm: Any, stages: Sequence[str]) -> float:
    """Output tokens per second of one batch whose requests take turns among the stages."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    numbers = {"base": 1, "grown-1": 2}
    names = [stages[i % len(stages)] for i in range(BATCH)]
    adapters = [LoRARequest(name, numbers[name], name) if name else None for name in names]
    prompts = [{"prompt_token_ids": [(7 * i + j) % 8192 for j in range(PROMPT_TOKENS)]} for i in range(BATCH)]
    params = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, logprobs=0, ignore_eos=True, detokenize=False)
    began = time.perf_counter()
    llm.generate(prompts, params, lora_request=adapters, use_tqdm=False)
    return BATCH * NEW_TOKENS / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
