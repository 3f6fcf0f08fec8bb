"""`tokenformer serve` divides a machine's cores."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from vllm.utils import cpu_resource_utils, torch_utils
from vllm.utils.cpu_resource_utils import LogicalCPUInfo

from server.system.cores import BINDING, IN_ENGINE, LARGE_MODEL, bind_ranks, prepare_openmp, threads, use_cores

SETTINGS = (BINDING, "LD_PRELOAD", "OMP_NUM_THREADS", "KMP_BLOCKTIME", "KMP_TPAUSE")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set, and what is set is forgotten after the test."""
    for name in SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def machine(monkeypatch: pytest.MonkeyPatch, cores: int, siblings: int = 1, nodes: int = 1, quota: int = 99) -> None:
    """So many physical cores, each of so many logical ones, evenly on so many memory nodes."""
    found = [LogicalCPUInfo(i, i // siblings, i % nodes) for i in range(cores * siblings)]
    monkeypatch.setattr(cpu_resource_utils, "get_allowed_cpu_list", lambda: found)
    monkeypatch.setattr(cpu_resource_utils, "get_visible_memory_node", lambda: list(range(nodes)))
    monkeypatch.setattr(torch_utils, "available_cpu_count", lambda: min(cores * siblings, quota))


def settings(**changes: object) -> Namespace:
    sizes = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1}
    return Namespace(**{**sizes, "distributed_executor_backend": None, **changes})


@pytest.mark.parametrize(
    ("cores", "ranks", "binding"),
    [
        ({0, 1}, 2, "0|1"),
        ({0, 1, 2, 3, 6}, 2, "0,1|2,3,6"),
        ({4, 5, 6}, 3, "4|5|6"),
        ({0}, 2, "nobind"),
        ({0, 1}, 1, None),
    ],
)
def test_cores_are_divided_among_ranks(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], ranks: int, binding: str | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    bind_ranks(ranks)
    assert os.environ.get(BINDING) == binding


def test_a_binding_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINDING, "7|8")
    bind_ranks(2)
    assert os.environ[BINDING] == "7|8"


def test_one_rank_runs_in_the_engines_process(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cores=4)
    args = settings()
    use_cores(args, LARGE_MODEL)
    assert args.distributed_executor_backend == IN_ENGINE
    assert os.environ["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize(
    ("changes", "nodes", "binding"),
    [
        ({"tensor_parallel_size": 2}, 1, None),
        ({"pipeline_parallel_size": 2}, 1, None),
        ({"data_parallel_size": 2}, 1, None),
        ({"distributed_executor_backend": "mp"}, 1, None),
        ({}, 2, None),
        ({}, 1, "0-3"),
    ],
)
def test_vllm_binds_several_ranks_and_nodes_and_what_the_user_chose(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], nodes: int, binding: str | None
) -> None:
    machine(monkeypatch, cores=4, nodes=nodes)
    if binding:
        monkeypatch.setenv(BINDING, binding)
    args = settings(**changes)
    use_cores(args, LARGE_MODEL)
    assert args.distributed_executor_backend == changes.get("distributed_executor_backend")
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_number_of_threads_is_the_users_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cores=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    use_cores(settings(), LARGE_MODEL)
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("cores", "siblings", "quota", "small", "large"),
    [(1, 1, 99, 1, 1), (2, 1, 99, 1, 2), (8, 2, 99, 7, 8), (8, 2, 3, 2, 3)],
)
def test_a_thread_for_every_core_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, cores: int, siblings: int, quota: int, small: int, large: int
) -> None:
    machine(monkeypatch, cores, siblings, quota=quota)
    assert (threads(LARGE_MODEL - 1), threads(LARGE_MODEL)) == (small, large)


def intel() -> Path:
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    if not library.exists():
        pytest.skip("Intel's OpenMP is for x86 only")
    return library.resolve()


def test_intels_openmp_is_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    library = intel()
    prepare_openmp()
    assert os.environ["LD_PRELOAD"] == str(library)
    monkeypatch.setenv("LD_PRELOAD", "/lib/libjemalloc.so")
    prepare_openmp()
    assert os.environ["LD_PRELOAD"] == f"{library}:/lib/libjemalloc.so"


def test_an_openmp_that_the_user_preloads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/lib/libgomp.so.1")
    prepare_openmp()
    assert os.environ["LD_PRELOAD"] == "/lib/libgomp.so.1"
