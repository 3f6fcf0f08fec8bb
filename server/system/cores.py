"""The engine's use of CPU cores: its processes, its threads, and its OpenMP library."""

from __future__ import annotations

import importlib.metadata
import os
from argparse import Namespace
from pathlib import Path

BINDING = "VLLM_CPU_OMP_THREADS_BIND"
"""vLLM's setting: the cores of each rank."""

IN_ENGINE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""Runs the model in the engine's process. vLLM replaces the name `uni` by `mp` on CPU, to bind a separate process to
cores; here no other process has to be kept off them."""

LARGE_MODEL = 5_000_000
"""Parameters from which the model gains more by the last core than the rest of the server loses. On two cores a model
of 1.5 million answered slower with both; one of 8 million was as fast alone and 15 % faster in batches of 16."""

PRELOADED = ("libiomp", "libomp", "libgomp")


def use_cores(args: Namespace, parameters: float) -> None:
    """Complete vLLM's settings where the user has not; `parameters` counts those of the checkpoint."""
    ranks = args.tensor_parallel_size * args.pipeline_parallel_size
    bind_ranks(ranks)
    alone = ranks == args.data_parallel_size == 1 and args.distributed_executor_backend is None
    if alone and BINDING not in os.environ and is_one_memory_node():
        args.distributed_executor_backend = IN_ENGINE
        os.environ.setdefault("OMP_NUM_THREADS", str(threads(parameters)))


def prepare_openmp() -> None:
    """Preload Intel's OpenMP, which vLLM recommends and installs, ahead of torch's GNU one.

    A step of the model starts dozens of parallel loops, and GNU's threads take longer to begin and end each of them.
    """
    os.environ.setdefault("KMP_BLOCKTIME", "5")  # ms that an idle thread spins, vLLM's value
    os.environ.setdefault("KMP_TPAUSE", "0")
    os.environ.setdefault("KMP_AFFINITY", "none")  # the default binds a forked process to the first core
    try:
        files = importlib.metadata.files("intel-openmp") or []
    except importlib.metadata.PackageNotFoundError:
        return  # exists on x86 only
    preloaded = os.environ.get("LD_PRELOAD", "")
    library = next((str(Path(file.locate()).resolve()) for file in files if file.name == "libiomp5.so"), None)
    if library is not None and not any(name in preloaded for name in PRELOADED):
        os.environ["LD_PRELOAD"] = f"{library}:{preloaded}" if preloaded else library


def bind_ranks(ranks: int) -> None:
    """Divide the cores among several ranks; vLLM's default needs a memory node for each."""
    if ranks > 1:
        cores = sorted(os.sched_getaffinity(0))
        shares = [cores[len(cores) * rank // ranks : len(cores) * (rank + 1) // ranks] for rank in range(ranks)]
        binding = "|".join(",".join(map(str, share)) for share in shares) if len(cores) >= ranks else "nobind"
        os.environ.setdefault(BINDING, binding)


def is_one_memory_node() -> bool:
    """Whether there is one memory node; with several, vLLM keeps the model on one of them."""
    from vllm.utils.cpu_resource_utils import get_visible_memory_node

    return len(get_visible_memory_node()) == 1


def threads(parameters: float) -> int:
    """Threads of the model: one per physical core; a small model leaves a core to the rest of the server."""
    from vllm.utils.cpu_resource_utils import get_allowed_cpu_list
    from vllm.utils.torch_utils import available_cpu_count

    physical = {(cpu.numa_node, cpu.physical_core) for cpu in get_allowed_cpu_list()}
    cores = min(len(physical), available_cpu_count())
    return cores if parameters >= LARGE_MODEL else max(cores - 1, 1)
