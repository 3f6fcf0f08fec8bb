"""The kernels compiled for GPUs; the interpreter accepts much that a compiler does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that a block may have, by compute capability: A100 and H100."""

KERNELS = {
    "squares_kernel",
    "row_operation_kernel",
    "keys_kernel",
    "values_kernel",
    "sum_kernel",
    "blocks_kernel",
    "merge_kernel",
    "spread_kernel",
}


def test_kernels_compile_and_fit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compiling", *map(str, SHARED)],
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for capability, room in SHARED.items():
        compiled = [kernel for kernel in found if kernel["capability"] == capability]
        assert {kernel["kernel"] for kernel in compiled} == KERNELS
        for kernel in compiled:
            assert kernel["shared"] <= room and kernel["stack"] == 0 and not kernel["float64"], kernel
