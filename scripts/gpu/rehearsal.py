"""An engine's work before it touches the GPU, on a machine without one: the last step of `make gpu-kit`.

Runs in a fresh environment with the kit and those packages of the other machine that the kit relies on. The device is
simulated: an H200, as far as vLLM asks for it before CUDA starts. The engine must then end where CUDA starts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "checkpoint"

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_NO_USAGE_STATS": "1"}

MODULES = (
    "vllm._custom_ops",
    "vllm.compilation.backends",
    "vllm.v1.attention.backends.triton_attn",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.engine.core",
    "vllm.benchmarks.serve",
    "model_impl.model.tokenformer",
    "model_impl.engine.worker",
    "server.process.serve",
    "server.process.plugin",
    "server.process.launch",
    "loadtest.gpu_kernels",
    "loadtest.gpu_roofline",
    "loadtest.gpu_speed",
    "loadtest.kernels",
    "scripts.gpu.operators",
    "scripts.gpu.serving",
    "tests.kernels.compiling",
    "transformers.models.gpt_neox.modeling_gpt_neox",
)

NO_GPU = ("NVIDIA driver", "No CUDA GPUs", "CUDA error")
"""One of them is in the error of the first CUDA call."""


def configuration(dtype: str, eager: bool) -> dict[str, Any]:
    """vLLM's configuration of the demo checkpoint for the device."""
    from vllm.engine.arg_utils import EngineArgs

    from model_impl.plugin import WORKER_CLASS

    options: dict[str, Any] = {"dtype": dtype, "enforce_eager": eager, "worker_cls": WORKER_CLASS}
    config = EngineArgs(str(DEMO), **options).create_engine_config()
    return {
        "device": config.device_config.device_type,
        "dtype": str(config.model_config.dtype),
        "architecture": config.model_config.architecture,
        "worker": config.parallel_config.worker_cls,
        "cuda_graphs": config.compilation_config.cudagraph_mode.name,
        "attention": attention(config),
    }


def attention(config: Any) -> str:
    from vllm.config import set_current_vllm_config
    from vllm.v1.attention.selector import get_attn_backend

    with set_current_vllm_config(config):
        backend = get_attn_backend(64, config.model_config.dtype, "auto")
    return str(backend.get_name())


def engine_ends_where_cuda_begins() -> str:
    from vllm import LLM

    from model_impl.plugin import WORKER_CLASS

    try:
        LLM(str(DEMO), enforce_eager=True, worker_cls=WORKER_CLASS, kv_cache_memory_bytes=1 << 28)
    except RuntimeError as error:
        if any(words in str(error) for words in NO_GPU):
            return str(error).splitlines()[0]
        raise
    raise AssertionError("an engine started without a GPU")


def serving_application() -> int:
    """How many routes `tokenformer serve` would answer, of what all of them import."""
    from vllm.entrypoints.launchers.api_server.entry import build_app

    from server.process.serve import parse

    args: Namespace = parse([str(DEMO)])
    return len(build_app(args, ("generate",)).routes)


def compiled_kernels() -> list[str]:
    """Our Triton kernels, by this environment's Triton, for the GPU that is not there."""
    command = [sys.executable, "-m", "tests.kernels.compiling", "90"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted({json.loads(line)["kernel"] for line in done.stdout.splitlines()})


def collected(*tests: str) -> int:
    """How many tests pytest finds there."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sum("::" in line for line in done.stdout.splitlines())


def main() -> None:
    from server.engine.settings import prepare_environment

    prepare_environment()
    from vllm.platforms import current_platform
    from vllm.plugins import load_general_plugins

    from scripts.gpu.check import KERNELS, TESTS

    operators = sys.modules["vllm._C_stable_libtorch"]
    found = "stand-ins" if operators.__spec__ is None else "compiled"
    assert current_platform.is_cuda() and found == sys.argv[1], (current_platform, found)
    for module in MODULES:
        importlib.import_module(module)
    load_general_plugins()
    report = {
        "python": sys.version.split()[0],
        **{name: importlib.metadata.version(name) for name in ("torch", "triton", "transformers", "vllm")},
        "gpu": current_platform.get_device_name(),
        "operators": found,
        "configurations": [configuration("bfloat16", eager=False), configuration("float32", eager=True)],
        "routes": serving_application(),
        "kernels": compiled_kernels(),
        "engine": engine_ends_where_cuda_begins(),
        "tests": collected(*KERNELS, *TESTS),
    }
    print("REPORT", json.dumps(report, indent=1), sep="\n")


if __name__ == "__main__":
    main()
