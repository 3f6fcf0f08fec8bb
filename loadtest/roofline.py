"""The engine against the limits of this machine: decode against its memory bandwidth, prefill against its GEMM rate.

    python -m loadtest.roofline [--rounds 5] [--out loadtest/results/roofline.json]

Random weights in the released sizes, float32 and bfloat16, one process each. In every round the bandwidth, a decode,
the GEMM rate and a prefill are measured one after the other, so that all of them meet the same machine; shares are
medians of the rounds' own.

- bandwidth: bytes per second of reading a matrix of 1 GiB in large pages, the best of five tries of each of three ways:
  its sum, and one row times it by oneDNN, which stands beside it, or by our own product, which is what a decode does;
- GEMM rate: of 2,048 rows times a matrix of the feed-forward's shape, the faster of PyTorch and oneDNN;
- decode: time per token at batch 1, against (bytes of all weights / bandwidth), and against oneDNN's own;
- prefill: model FLOPs per second, 2 per weight and token and 2 T^2 d per layer for causal attention, against the rate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from loadtest import machine, plots
from loadtest.in_process import generate, start, take_openmp
from loadtest.profiling import profiled
from loadtest.shapes import SHAPES, Shape
from model_impl.kernels.cpu.large_pages import use_large_pages
from model_impl.kernels.cpu.weights import pack

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PREFILL = (256, 512, 1024, 2000)
"""Prompt lengths."""
SHORT, LONG = 16, 48
"""New tokens of two runs, whose difference is pure decode."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=machine.results() / "roofline.json")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # shape and dtype: what `main` starts for each
    arguments = parser.parse_args()
    take_openmp()
    if arguments.one:
        print(json.dumps(measure(SHAPES[arguments.one[0]], arguments.one[1], arguments.rounds)))
        return
    results = {}
    for name in SHAPES:
        for dtype in DTYPES:
            measuring = [
                sys.executable,
                "-m",
                "loadtest.roofline",
                "--rounds",
                str(arguments.rounds),
                "--one",
                name,
                dtype,
            ]
            done = subprocess.run(measuring, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            results[f"{name} {dtype}"] = json.loads(done.stdout.splitlines()[-1])
            print(f"{name} {dtype}: {summary(results[f'{name} {dtype}'])}", flush=True)
    command = f"python -m loadtest.roofline --rounds {arguments.rounds}"
    report = {"results": results, "command": command, "machine": machine.describe()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    plots.draw("roofline", arguments.out)


def summary(result: dict[str, Any]) -> str:
    prefills = ", ".join(f"{length} tokens {found['of_gemm_rate']:.2f}" for length, found in result["prefill"].items())
    return f"decode {result['decode']['of_bandwidth_limit']:.2f} of the bandwidth; prefill of the GEMM rate: {prefills}"


def measure(shape: Shape, dtype: str, rounds: int) -> dict[str, Any]:
    llm = start(shape.checkpoint(), dtype=dtype, max_num_batched_tokens=2048)
    kind = DTYPES[dtype]
    probe, rate = bandwidth_probe(kind), gemm_probe(kind, shape)
    names = ("bandwidth", "onednn", "rate", "decode", *map(str, PREFILL))
    found: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(rounds + 1):
        once = {**probe(), "decode": decode_seconds(llm), "rate": rate()}
        once |= {str(length): generate(llm, 1, length, 1) for length in PREFILL}
        if round_number:  # the first round warms up
            for name, value in once.items():
                found[name].append(value)
    medians = {name: statistics.median(values) for name, values in found.items()}
    blocks = shape.layers * shape.tokens * 2 * shape.width
    head = shape.config().vocab_size * shape.width
    weights = (blocks + head) * kind.itemsize

    def share(work: float, rate: str, seconds: str) -> float:
        """The least time of the work at a round's own rate, as a share of its measured time in that round."""
        return round(statistics.median(work / r / s for r, s in zip(found[rate], found[seconds], strict=True)), 3)

    prefill = {}
    for length in PREFILL:
        flops = 2 * length * blocks + 2 * head + shape.layers * 2 * length**2 * shape.width
        prefill[length] = {
            "seconds": round(medians[str(length)], 4),
            "tokens_per_second": round(length / medians[str(length)], 1),
            "of_gemm_rate": share(flops, "rate", str(length)),
        }
    return {
        "weights_mib": round(weights / 2**20, 1),
        "bandwidth_gb_per_s": round(medians["bandwidth"] / 1e9, 1),
        "onednn_one_row_gb_per_s": round(medians["onednn"] / 1e9, 1),
        "gemm_gflop_per_s": round(medians["rate"] / 1e9, 1),
        "decode": {
            "ms_per_token": round(1000 * medians["decode"], 2),
            "tokens_per_second": round(1 / medians["decode"], 1),
            "limit_ms_per_token": round(1000 * weights / medians["bandwidth"], 2),
            "of_bandwidth_limit": share(weights, "bandwidth", "decode"),
            "of_onednn": share(weights, "onednn", "decode"),
        },
        "prefill": prefill,
        "profile": {
            "decode of one token": profiled(lambda: generate(llm, 1, SHORT, LONG), LONG),
            f"prefill of {PREFILL[-1]} tokens": profiled(lambda: generate(llm, 1, PREFILL[-1], 1), 1),
        },
        "rounds": found,
    }


def decode_seconds(llm: Any) -> float:
    """Per token of one sequence."""
    return (generate(llm, 1, SHORT, LONG) - generate(llm, 1, SHORT, SHORT)) / (LONG - SHORT)


def bandwidth_probe(dtype: torch.dtype) -> Callable[[], dict[str, float]]:
    """Measures bytes per second that are read: the most, and by oneDNN's product with one row."""
    from vllm import _custom_ops as ops

    width = 1024
    matrix = torch.randn(2**30 // dtype.itemsize // width, width).to(dtype)
    row = torch.randn(1, width).to(dtype)
    handler = ops.create_onednn_mm(matrix.t(), 32)
    ours = pack(matrix)
    places = [(matrix.data_ptr(), matrix.nbytes), *([ours.place()] if ours else [])]
    use_large_pages(places)  # as the model's weights are
    ways = {"sum": lambda: matrix.sum(), "onednn": lambda: ops.onednn_mm(handler, row, None)}
    if ours:
        ways["ours"] = lambda: ours(row)

    def measured() -> dict[str, float]:
        rates = {name: matrix.nbytes / min(seconds(way) for _ in range(5)) for name, way in ways.items()}
        return {"bandwidth": max(rates.values()), "onednn": rates["onednn"]}

    return measured


def gemm_probe(dtype: torch.dtype, shape: Shape) -> Callable[[], float]:
    """Measures FLOPs per second."""
    from vllm import _custom_ops as ops

    rows = 2048
    x, matrix = torch.randn(rows, shape.width).to(dtype), torch.randn(shape.ffn, shape.width).to(dtype)
    packed = ops.create_onednn_mm(matrix.t(), 32)
    ways = (lambda: F.linear(x, matrix), lambda: ops.onednn_mm(packed, x, None))
    return lambda: 2 * rows * matrix.numel() / min(seconds(way) for way in ways)


def seconds(way: Callable[[], Any]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
