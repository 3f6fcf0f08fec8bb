"""Every kernel of ours beside the code that it replaces, on the machine at hand.

    python -m loadtest.kernels [--out FILE]

On a GPU the Triton kernels (loadtest/gpu_kernels.py), otherwise those for CPUs (loadtest/cpu_kernels.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from loadtest import machine
from model_impl.kernels.gpu import operators as kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.results() / "kernels.json")
    out: Path = parser.parse_args().out
    report = {"machine": machine.describe(), "command": "python -m loadtest.kernels"}
    out.parent.mkdir(parents=True, exist_ok=True)
    for found in figures():
        out.write_text(json.dumps(report | found, indent=1) + "\n")


def figures() -> Iterable[dict[str, Any]]:
    """The figures so far, after each measurement."""
    if torch.cuda.is_available() and kernels.runs_on(torch.device("cuda")):
        from loadtest import gpu_kernels

        return gpu_kernels.figures()
    from loadtest import cpu_kernels

    return [cpu_kernels.figures()]


if __name__ == "__main__":
    main()
