"""Every kernel of ours beside what it replaces, on the machine at hand.

    python -m loadtest.kernels [--out FILE]

On a GPU the Triton kernels (loadtest/gpu_kernels.py), otherwise those for CPUs (loadtest/cpu_kernels.py).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from loadtest import machine
from model_impl import kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.results() / "kernels.json")
    out: Path = parser.parse_args().out
    if torch.cuda.is_available() and kernels.runs_on(torch.device("cuda")):
        from loadtest.gpu_kernels import figures
    else:
        from loadtest.cpu_kernels import figures
    report = {"machine": machine.describe(), "command": "python -m loadtest.kernels", **figures()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
