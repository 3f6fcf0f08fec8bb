"""Compiles every launch of the kernels at some sizes to machine code, for a GPU that need not exist here.

    PYTHONPATH=.venv-triton python -m tests.kernels.compiling 80 90

prints a line of JSON per launch and compute capability: the kernel's name, whether it computes in float64, registers
and bytes of the stack per thread (what does not fit into registers lies there), and shared memory. Of what the
autotuner would try it takes the first. Nothing runs: what the kernels would compute is left undefined.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

from model_impl.kernels.gpu import operators as kernels
from model_impl.kernels.gpu import triton_pattention
from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.gpu.pattention import WholePattention
from model_impl.reference.closed_form import STRONGEST, WORDS

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class AbsentGPU:
    """As much of a driver as compiling needs."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return int(self.target.arch)  # kernels are cached per device

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling_only(capability: int) -> Iterator[list[dict[str, Any]]]:
    """Launches compile, and are listed."""
    found: list[dict[str, Any]] = []
    run, tune = JITFunction.run, Autotuner.run

    def take_first(self: Autotuner, *args: Any, **kwargs: Any) -> None:
        self.fn.run(*args, **kwargs, **self.configs[0].all_kwargs())

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        float64, shared = "f64" in kernel.asm["ptx"], kernel.metadata.shared
        found.append({"kernel": self.__name__, "float64": float64, "shared": shared} | resources(kernel.asm["cubin"]))

    triton.runtime.driver.set_active(AbsentGPU(capability))
    JITFunction.run, Autotuner.run = compile_only, take_first
    try:
        yield found
    finally:
        JITFunction.run, Autotuner.run = run, tune


def resources(cubin: bytes) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name.lower(): int(re.search(rf"{name}:(\d+)", text)[1]) for name in ("REG", "STACK")}


def launch_all() -> None:
    """Every kernel in the shapes of the 150M model's feed-forward."""
    width, tokens, dtype = 768, 3072, torch.bfloat16
    keys, values = torch.empty(tokens, width, dtype=dtype), torch.empty(width, tokens, dtype=dtype)
    coupling, tau = torch.empty(1, 1, 1), torch.empty(1, 1, 1)
    scores, layout = torch.empty(64, tokens, dtype=dtype), Layout.of([[tokens]], "cpu")
    squares = kernels.segment_squares(scores, layout, "gelu_l2_norm")
    kernels.row_operation(scores, layout, coupling, tau, "gelu_l2_norm", squares)
    kernels.row_operation(scores, layout, coupling, tau, "l2_norm_gelu", None)
    whole = WholePattention.of(keys, [values], [[tokens]], "l2_norm_gelu")
    x = torch.empty(1, width, dtype=dtype)
    whole(x, coupling, tau, "fused")
    norms = triton_pattention.gram_squares(x, keys[:width], whole.gram_tiles)
    triton_pattention.weights_by_norm(x, keys, whole.many_tiles, layout.alignment, norms, coupling, tau)
    kernels.token_statistics(torch.empty(4, 50277, dtype=dtype))
    head, norm = torch.empty(50277, width, dtype=dtype), torch.empty(width, dtype=dtype)
    ids, strongest = torch.zeros(4, WORDS, dtype=torch.int64), torch.zeros(4, STRONGEST, dtype=torch.int64)
    kernels.logit_spread(x.expand(4, -1), head, norm, 1e-5, ids, ids.float(), values, strongest, strongest.float())


def main() -> None:
    for capability in map(int, sys.argv[1:]):
        with compiling_only(capability) as found:
            launch_all()
        for kernel in found:
            print(json.dumps({"capability": capability} | kernel))


if __name__ == "__main__":
    main()
