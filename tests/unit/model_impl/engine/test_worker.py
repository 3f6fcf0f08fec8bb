"""The worker's handling of growth deltas."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.lora.request import LoRARequest

from model_impl.checkpoint.delta import TENSORS, GrowthDelta, load_delta, split
from model_impl.checkpoint.reading import CheckpointError
from model_impl.engine.worker import TokenformerWorker
from model_impl.variants import VERSION_MARK
from tests.support.calibrated import checkpoint


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    checkpoint(tmp_path / "grown", 3)
    split(tmp_path / "grown", tmp_path / "delta")
    return tmp_path / "delta"


def worker(held: dict[int, GrowthDelta]) -> TokenformerWorker:
    made: Any = TokenformerWorker.__new__(TokenformerWorker)
    made.delta_paths = {}
    made.tokenformer = SimpleNamespace(add_delta=held.__setitem__)
    worker: TokenformerWorker = made
    return worker


def request(delta: Path, digest: str) -> LoRARequest:
    return LoRARequest("delta", 7, f"{delta}{VERSION_MARK}{digest}")


def test_the_worker_takes_the_content_that_was_checked(delta: Path) -> None:
    held: dict[int, GrowthDelta] = {}
    checked = load_delta(delta)
    assert worker(held).add_lora(request(delta, checked.digest))
    assert held[7] == checked


def test_the_worker_refuses_a_delta_that_was_damaged_since_it_was_checked(delta: Path) -> None:
    held: dict[int, GrowthDelta] = {}
    checked = load_delta(delta)
    (delta / TENSORS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="changed"):
        worker(held).add_lora(request(delta, checked.digest))
    assert not held


def test_the_worker_refuses_content_that_has_changed_since_it_was_checked(delta: Path) -> None:
    held: dict[int, GrowthDelta] = {}
    checked = load_delta(delta)
    content = bytearray((delta / TENSORS).read_bytes())
    content[-1] ^= 1
    (delta / TENSORS).write_bytes(content)
    with pytest.raises(CheckpointError, match="changed"):
        worker(held).add_lora(request(delta, checked.digest))
    assert not held


def test_a_delta_keeps_the_content_that_was_checked(delta: Path) -> None:
    checked = load_delta(delta)
    before = dict(checked.tensors())
    (delta / TENSORS).write_bytes(b"")
    assert all(tensor.equal(before[name]) for name, tensor in checked.tensors())
