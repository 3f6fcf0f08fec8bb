"""Tests of everything that depends on the processor, under emulated lesser processors: `make test-isa`.

    python -m tests.isa [--name] [level] ...

Each level below the processor's own takes one run of pytest. Environment variables tell PyTorch, oneDNN, our kernels
and glibc what to use, tests/emulation tells vLLM. The choice of code is emulated, not the processor: an instruction
that the level lacks would still run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loadtest import machine
from model_impl.kernels.cpu.library import LEVELS, MAX_LEVEL, level

ROOT = Path(__file__).parents[1]

TESTS = [
    "tests/unit/model_impl/kernels",
    *("tests/engine/test_packed.py", "tests/engine/test_sampler.py", "tests/api/test_golden_http.py"),
    *("tests/conformance/test_16_bit.py", "tests/conformance/test_golden_engine.py"),
]

COMMAND = [sys.executable, "-m", "pytest", "-q", "-k", "not golden or 01_base or 12_official"]
"""An engine for every golden case would take longer than all the rest."""

AVX512 = ["F", "VL", "BW", "DQ", "CD", "IFMA", "VBMI", "VBMI2", "VNNI", "BITALG", "VPOPCNTDQ", "BF16"]

EMULATED = {
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join(f"-AVX512{part}" for part in AVX512),
    },
}


def lesser_levels() -> list[str]:
    return [name for name in EMULATED if LEVELS.index(name) < LEVELS.index(level())]


def environment(name: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT / "tests" / "emulation"), os.environ.get("PYTHONPATH")]))
    # Set here, as tests/conftest.py comes too late for a PyTorch that is imported at start.
    return os.environ | EMULATED[name] | {MAX_LEVEL: name, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def main() -> None:
    wanted = sys.argv[1:]
    print(f"== processor: {machine.describe()['processor']}, level {level()}", flush=True)
    if wanted == ["--name"]:
        return
    levels = wanted or lesser_levels()
    with ThreadPoolExecutor() as pool:  # each keeps one core busy
        results = list(pool.map(tested, levels))
    for name, result in zip(levels, results, strict=True):
        print(f"== emulated level {name}\n{result.stdout}", flush=True)
    sys.exit(any(result.returncode for result in results))


def tested(name: str) -> subprocess.CompletedProcess[str]:
    """One run of pytest, whose output comes at its end."""
    command = [*COMMAND, *TESTS]
    return subprocess.run(command, env=environment(name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


if __name__ == "__main__":
    main()
