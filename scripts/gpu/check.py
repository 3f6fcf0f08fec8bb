"""The check of a GPU, on a machine that has PyTorch for CUDA and the kit: `make gpu-check`.

    OUT=results python3 scripts/gpu/check.py [--kit build/gpu-kit] [STEP ...]
    python -m scripts.gpu.check --rehearse      without GPU and kit: what can run on a CPU, on small models

Every step is a process with its own time limit, and runs even if an earlier one failed. Together they stay below nine
minutes. The folder that OUT names gets summary.json with each step's exit, log.txt with their output, and a file with
the figures of each step. Only the standard library is imported here: the kit brings the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TESTS = (
    "tests/conformance/test_golden_engine.py",
    "tests/conformance/test_16_bit.py",
    "tests/conformance/test_compiled.py",
    "tests/conformance/test_variants.py",
    "tests/engine/test_ensemble.py",
    "tests/engine/test_stages.py",
    "tests/engine/test_sampler.py",
)
"""The engine's tests: chunked prefill, prefix cache, stages in one batch, an ensemble, 16 bit, compiled."""

KERNELS = ("tests/kernels",)

LIMIT = 540
"""Seconds that all steps may take together."""

GRACE = 10
"""Seconds between asking a late step to end and killing it."""

STAND_INS = "GPU_STAND_INS"


@dataclass(frozen=True)
class Step:
    name: str
    seconds: int
    command: tuple[str, ...]
    rehearsal: tuple[str, ...] = ()
    """Arguments that make the step small; a step without any needs a GPU."""


STEPS = (
    Step("operators", 30, ("-m", "scripts.gpu.operators")),
    Step("kernels", 60, ("-m", "pytest", "-q", *KERNELS)),
    Step("kernel-speed", 55, ("-m", "loadtest.kernels", "--out", "{out}/kernels.json")),
    Step("engine", 90, ("-m", "pytest", "-q", *TESTS), ("-k", "test_golden_engine and 01_base and paged_cache")),
    Step("serving", 45, ("-m", "scripts.gpu.serving"), ("--rehearse",)),
    Step("roofline", 110, ("-m", "loadtest.gpu_roofline", "--out", "{out}/roofline.json"), ("--rehearse",)),
    Step("speed", 130, ("-m", "loadtest.gpu_speed", "--seconds", "115", "--out", "{out}/speed.json"), ("--rehearse",)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", choices=[*(step.name for step in STEPS), []], metavar="STEP")
    parser.add_argument("--kit", type=Path, default=ROOT / "build" / "gpu-kit")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu-check")
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    environment = dict(os.environ) if arguments.rehearse else with_kit(arguments.kit)
    chosen = [step for step in STEPS if step.name in (arguments.steps or [each.name for each in STEPS])]
    summary: list[dict[str, object]] = []
    with (out / "log.txt").open("w") as log:
        for step in chosen:
            if arguments.rehearse and not step.rehearsal:
                continue
            left = LIMIT - (time.monotonic() - began)
            print(f"== {step.name}", file=log, flush=True)
            result = run(step, min(step.seconds, left), arguments.rehearse, out, environment, log.fileno())
            summary.append(result)
            print(json.dumps(result), flush=True)
            (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
            if step.name == "operators" and result["exit"] != 0:
                environment[STAND_INS] = "1"  # the following steps run without vLLM's compiled operators
    return 0 if all(result["exit"] == 0 for result in summary) else 1


def with_kit(kit: Path) -> dict[str, str]:
    """The variables by which Python finds the kit, which is unpacked unless it is already."""
    archives = sorted(kit.glob("*.tar.xz"))
    if not archives:
        raise SystemExit(f"{kit}: no kit; `make gpu-kit` builds it")
    print("unpacking", ", ".join(archive.name for archive in archives), flush=True)
    digest = zlib.crc32(b"".join(archive.read_bytes() for archive in archives))
    site = Path(tempfile.gettempdir()) / f"gpu-kit-{digest:08x}"
    if not (site / "complete").exists():
        for archive in archives:
            with tarfile.open(archive) as packed:
                packed.extractall(site, filter="data")
        (site / "complete").touch()
    return os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{site}",
        "PYTHONUNBUFFERED": "1",
        "TRITON_F32_DEFAULT": "ieee",  # vLLM's attention would compute float32 in TF32
    }


def run(
    step: Step, seconds: float, rehearse: bool, out: Path, environment: dict[str, str], log: int
) -> dict[str, object]:
    """The step's end: `exit` is its code, or None if it was killed for being late."""
    command = [sys.executable, *(part.format(out=out) for part in step.command)]
    if rehearse:
        command += step.rehearsal
    elif "pytest" in command:
        command += ["-n", "6"]
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed_interrupt,
    )
    exit_code: int | None = None
    try:
        exit_code = process.wait(max(seconds, 1))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)  # Python then ends the servers that it started
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {"step": step.name, "exit": exit_code, "seconds": round(time.monotonic() - began, 1), "limit": step.seconds}


def heed_interrupt() -> None:
    """Makes the step obey SIGINT. A shell starts its background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
