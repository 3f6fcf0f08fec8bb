"""The times of garbage collection."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from server.process import garbage
from server.process.garbage import EVERY_SECONDS, GROWN, LARGE, LONGEST_SECONDS, Garbage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time and memory, and when garbage was collected (`looks`) and memory given back (`returns`)."""
    clock = SimpleNamespace(now=0.0, looks=[], returns=[], resident=0)
    monkeypatch.setattr(garbage, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(garbage, "gc", SimpleNamespace(collect=lambda: clock.looks.append(clock.now)))
    monkeypatch.setattr(garbage, "resident", lambda: clock.resident)

    def give_back() -> None:
        clock.returns.append(clock.now)
        clock.resident = 10

    monkeypatch.setattr(garbage, "give_back", give_back)
    return clock


def run(clock: SimpleNamespace, cells: list[int], growth: int = 0) -> None:
    """Second by second, with so many cells under way, and with so many bytes more each second."""
    control: Any = SimpleNamespace(cells=0)
    watch = Garbage(control)
    for control.cells in cells:
        clock.now += 1
        clock.resident += growth
        watch.check()


def test_it_is_collected_again_and_again(clock: SimpleNamespace) -> None:
    run(clock, [0] * 35)
    assert clock.looks == [EVERY_SECONDS, 2 * EVERY_SECONDS, 3 * EVERY_SECONDS]
    assert clock.returns == []


def test_memory_is_given_back_where_it_has_grown(clock: SimpleNamespace) -> None:
    run(clock, [0] * 35, growth=GROWN // 19)
    assert clock.returns == [2 * EVERY_SECONDS]


def test_both_wait_for_large_answers(clock: SimpleNamespace) -> None:
    run(clock, [LARGE + 1] * 25 + [LARGE], growth=GROWN)
    assert clock.looks == clock.returns == [26]


def test_it_does_not_wait_for_ever(clock: SimpleNamespace) -> None:
    run(clock, [LARGE + 1] * 301, growth=GROWN)
    assert clock.looks == [LONGEST_SECONDS]
    assert clock.returns == []


def test_memory_can_be_given_back() -> None:
    gc.collect()
    garbage.give_back()
