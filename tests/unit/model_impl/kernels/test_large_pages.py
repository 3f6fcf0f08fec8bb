"""Memory keeps its content and lies in large pages, where the system gives them; else nothing happens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_impl.kernels.cpu.large_pages import PAGE, use_large_pages


def large_kib(address: int) -> int:
    """KiB in large pages of the mapping around an address."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        first, _, last = line.split()[0].partition("-")
        if last and int(first, 16) <= address < int(last, 16):
            return next(int(entry.split()[1]) for entry in lines if entry.startswith("AnonHugePages"))
    raise AssertionError("not mapped")


@pytest.mark.parametrize("length", [0, 1000, PAGE, 9 * PAGE + 5000])
def test_memory_keeps_its_content(length: int) -> None:
    memory = torch.arange(length, dtype=torch.int32)
    use_large_pages([(memory.data_ptr(), memory.nbytes)])
    assert torch.equal(memory, torch.arange(length, dtype=torch.int32))


def test_it_lies_in_large_pages() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    release = tuple(map(int, Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]))
    if not enabled.exists() or "[never]" in enabled.read_text() or release < (6, 1):
        pytest.skip("this system gives no large pages on demand")
    memory = torch.zeros(64 * PAGE, dtype=torch.uint8)
    use_large_pages([(memory.data_ptr(), memory.nbytes)])
    assert large_kib(memory.data_ptr() + PAGE) >= 62 * PAGE // 1024


def test_what_is_not_mapped_is_left_alone() -> None:
    use_large_pages([(1 << 46, 4 * PAGE)])
