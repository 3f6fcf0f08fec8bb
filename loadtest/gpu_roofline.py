"""The engine against the limits of a GPU: decode against its memory bandwidth, prefill against its matrix rate.

    python -m loadtest.gpu_roofline [450M 150M 1.5B] [--out FILE]

Random weights in the released sizes, bfloat16, in one process, with CUDA graphs and without; and a GPT-NeoX of the same
size by vLLM's own worker, on the same model runner. The file is written again after each model, so that the figures
survive when time is up.

- decode: milliseconds per step at several sizes of the batch, statistics of uncertainty on and off, against the bytes
  of all weights at the data sheet's bandwidth;
- prefill: FLOPs per second of prompts, 2 per weight and token and 2 T^2 d per layer, against a large matrix product;
- profile: the kernels of a decode and of a prefill that take most of the GPU's time, and the time that it is idle.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType

from loadtest import machine
from loadtest.in_process import generate, start
from loadtest.shapes import GPU_SHAPES, Shape

BANDWIDTH = 4.8e12
"""Bytes per second by the data sheet of an H200."""

BATCHES = (1, 16, 64, 256)
KERNELS = 12
"""Kernels that a profile lists, those that take longest."""

ORDER = ("450M", "150M", "1.5B")
"""The most informative sizes come first."""


@dataclass(frozen=True)
class Sizes:
    batches: tuple[int, ...] = BATCHES
    prompt: int = 2000
    short: int = 16
    long: int = 80
    """New tokens of two runs, whose difference is pure decode."""
    matrix: int = 8192


REHEARSAL = Sizes((1, 4), 64, 2, 6, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=ORDER, help="default: %(default)s")
    parser.add_argument("--rehearse", action="store_true", help="a tiny model, to see that all of it runs")
    parser.add_argument("--out", type=Path, default=machine.results() / "gpu.roofline.json")
    arguments = parser.parse_args()
    shapes = [rehearsed()] if arguments.rehearse else [GPU_SHAPES[name] for name in arguments.shapes]
    sizes = REHEARSAL if arguments.rehearse else Sizes()
    rate = matrix_rate(sizes.matrix)
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "command": "python -m loadtest.gpu_roofline",
        "matrix_tflop_per_s": round(rate / 1e12, 1),
        "bandwidth_gb_per_s": BANDWIDTH / 1e9,
        "models": {},
    }
    for shape in shapes:
        for name, measured in engines(shape):
            report["models"][f"{shape.name} {name}"] = measure(measured(), shape, sizes, rate)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")
            print(shape.name, name, json.dumps(report["models"][f"{shape.name} {name}"]["decode"]), flush=True)


def rehearsed() -> Shape:
    return Shape("rehearsal", 1, 64, 2, 64, 128)


def engines(shape: Shape) -> list[tuple[str, Callable[[], Any]]]:
    options: dict[str, Any] = {"dtype": "bfloat16", "max_num_seqs": BATCHES[-1], "kv_cache_memory_bytes": 1 << 26}
    graphs: dict[str, Any] = {"enforce_eager": False, "compilation_config": {"cudagraph_capture_sizes": list(BATCHES)}}
    if torch.cuda.is_available():
        options |= {"kv_cache_memory_bytes": 16 << 30, "gpu_memory_utilization": 0.2}  # others lie beside it
    else:
        graphs = {}  # a CPU has none
    ours = shape.checkpoint(torch.bfloat16)
    return [
        ("CUDA graphs", lambda: start(ours, **(options | graphs))),
        ("eager", lambda: start(ours, **options)),
        ("GPT-NeoX, CUDA graphs", lambda: plain(shape, **({"enforce_eager": True} | options | graphs))),
    ]


def plain(shape: Shape, **options: Any) -> Any:
    """vLLM's own worker and no statistics."""
    from vllm import LLM

    return LLM(
        str(shape.neox(weights=False)),
        load_format="dummy",
        skip_tokenizer_init=True,
        block_size=32,
        enable_prefix_caching=False,
        **options,
    )


def measure(llm: Any, shape: Shape, sizes: Sizes, rate: float) -> dict[str, Any]:
    blocks = shape.layers * shape.tokens * 2 * shape.width
    head = shape.config().vocab_size * shape.width
    limit = 1000 * 2 * (blocks + head) / BANDWIDTH
    kinds: Mapping[str, int | None] = {"off": None, "on": 0}
    decode = {}
    for batch in sizes.batches:
        for kind, logprobs in kinds.items():
            milliseconds = 1000 * step_seconds(llm, batch, sizes, logprobs)
            decode[f"{batch} at a time, {kind}"] = {
                "ms_per_step": round(milliseconds, 3),
                "tokens_per_second": round(1000 * batch / milliseconds, 1),
                "of_bandwidth_limit": round(limit / milliseconds, 3),
            }
    prefill = {}
    prompt = sizes.prompt
    flops = 2 * prompt * blocks + 2 * head + shape.layers * 2 * prompt**2 * shape.width
    for prompts in (1, 8):
        generate(llm, prompts, prompt, 1)
        seconds = min(generate(llm, prompts, prompt, 1) for _ in range(3))
        prefill[f"{prompts} at a time"] = {
            "tokens_per_second": round(prompts * prompt / seconds, 1),
            "of_matrix_rate": round(prompts * flops / seconds / rate, 3),
        }
    return {
        "weights_mib": round(2 * (blocks + head) / 2**20, 1),
        "limit_ms_per_step": round(limit, 3),
        "decode": decode,
        "prefill": prefill,
        "profile": {
            f"{sizes.short} tokens of one request": profiled(lambda: generate(llm, 1, sizes.short, sizes.short)),
            f"a prompt of {prompt} tokens": profiled(lambda: generate(llm, 1, prompt, 1)),
        },
    }


def step_seconds(llm: Any, batch: int, sizes: Sizes, logprobs: int | None) -> float:
    lengths = (sizes.short, sizes.short, sizes.long)  # the first warms up
    _, short, long = (generate(llm, batch, sizes.short, tokens, logprobs=logprobs) for tokens in lengths)
    return (long - short) / (sizes.long - sizes.short)


def matrix_rate(size: int) -> float:
    """FLOPs per second of a large matrix product of random numbers in bfloat16."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(6):
        synchronise()
        began = time.perf_counter()
        a @ b
        synchronise()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds[1:])


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def profiled(run: Callable[[], object]) -> dict[str, Any]:
    """Milliseconds of the kernels that take longest, of all kernels, and by the clock."""
    with torch.profiler.profile(acc_events=True) as profiler:
        began = time.perf_counter()
        run()
        synchronise()
        seconds = time.perf_counter() - began
    events = [event for event in profiler.key_averages() if event.device_type != DeviceType.CPU]
    times = {event.key: event.self_device_time_total / 1000 for event in events}
    longest = sorted(times, key=times.__getitem__, reverse=True)[:KERNELS]
    return {
        "by_the_clock": round(1000 * seconds, 2),
        "on_the_gpu": round(sum(times.values()), 2),
        "kernels": {name[:80]: round(times[name], 3) for name in longest},
    }


if __name__ == "__main__":
    main()
