"""A container's limit counts where it is less than the machine has."""

from __future__ import annotations

from pathlib import Path

import psutil

from server.system.memory import available_bytes


def group(path: Path, limit: str) -> Path:
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text("3000\n")
    (path / "memory.stat").write_text("anon 2000\nfile 1000\nkernel 5\n")
    return path


def test_what_a_container_leaves_is_available_with_its_file_cache(tmp_path: Path) -> None:
    assert available_bytes(group(tmp_path, "10000")) == 8000


def test_a_container_that_is_full(tmp_path: Path) -> None:
    assert available_bytes(group(tmp_path, "1500")) == 0


def test_no_limit_and_no_container(tmp_path: Path) -> None:
    at_least = psutil.virtual_memory().available // 2
    assert available_bytes(tmp_path) > at_least
    assert available_bytes(group(tmp_path, "max")) > at_least
