"""The times of garbage collection."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from server.process import garbage
from server.process.garbage import EVERY_SECONDS, LARGE, LONGEST_SECONDS, Garbage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time, and when garbage was collected (`looks`) and memory given back (`returns`)."""
    clock = SimpleNamespace(now=0.0, looks=[], returns=[])
    monkeypatch.setattr(garbage, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(garbage, "gc", SimpleNamespace(collect=lambda: clock.looks.append(clock.now)))
    monkeypatch.setattr(garbage, "give_back", lambda: clock.returns.append(clock.now))
    return clock


def run(clock: SimpleNamespace, cells: list[int]) -> None:
    """`check` is called second by second, with so many cells under way."""
    control: Any = SimpleNamespace(cells=0)
    watch = Garbage(control)
    for control.cells in cells:
        clock.now += 1
        watch.check()


def test_it_is_collected_and_given_back_again_and_again(clock: SimpleNamespace) -> None:
    """Memory is given back without growth as well: an answer that is in use at one return is free at the next."""
    run(clock, [0] * 35)
    assert clock.looks == clock.returns == [EVERY_SECONDS, 2 * EVERY_SECONDS, 3 * EVERY_SECONDS]


def test_both_wait_for_large_answers(clock: SimpleNamespace) -> None:
    run(clock, [LARGE + 1] * 25 + [LARGE])
    assert clock.looks == clock.returns == [26]


def test_it_does_not_wait_for_ever(clock: SimpleNamespace) -> None:
    run(clock, [LARGE + 1] * 301)
    assert clock.looks == [LONGEST_SECONDS]
    assert clock.returns == []


def test_memory_can_be_given_back() -> None:
    gc.collect()
    garbage.give_back()
