"""Packages that vLLM's CPU build requires and that a text server on CPUs has no use for.

pip installs them too. A package index has them built for CUDA: beside a CPU build of PyTorch, importing torchvision,
torchaudio or torchcodec fails, and with them transformers and vLLM, which import them where they find them. Triton is
imported, warns that it has no backend for CPUs, and reports leaks at the end.
"""

from __future__ import annotations

import runpy
import sys
from importlib.metadata import PackageNotFoundError, version

CUDA_PACKAGES = ("torchvision", "torchaudio", "torchcodec", "triton")

INSPECTION = "vllm.model_executor.models.registry"
"""The program in which vLLM imports a model's class to see what it can do. It imports nothing of ours before."""

CPU_BUILD = "+cpu"
"""The end of the version of a CPU build, as PyTorch's own index has them."""


def hide_cuda_packages() -> None:
    """Let this process find none of them that was built for CUDA, if its PyTorch is a CPU build."""
    if not _version("torch").endswith(CPU_BUILD):
        return
    for name in CUDA_PACKAGES:
        if not _version(name).endswith(CPU_BUILD):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # import then says that there is none


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def install() -> None:
    """Have this process's vLLM run `INSPECTION` by this module."""
    from vllm.model_executor.models import registry

    registry._SUBPROCESS_COMMAND = [sys.executable, "-m", __name__]


if __name__ == "__main__":
    hide_cuda_packages()
    runpy.run_module(INSPECTION, run_name="__main__", alter_sys=True)
