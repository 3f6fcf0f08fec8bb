"""Readiness of a server, on an engine that a test controls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from prometheus_client import REGISTRY

from server import metrics
from server.process.health import FRESH_SECONDS, Health


class Engine:
    """Makes a token when `answers` is set, but for the ranks in `dead`."""

    errored = False

    def __init__(self, dead: frozenset[int] = frozenset()) -> None:
        self.answers, self.fails, self.dead = asyncio.Event(), False, dead
        self.asked = self.given_up = 0

    async def generate(self, *args: Any, data_parallel_rank: int) -> AsyncIterator[str]:
        self.asked += 1
        try:
            await (asyncio.Event() if data_parallel_rank in self.dead else self.answers).wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.fails:
            raise RuntimeError("no token")
        yield "a token"


def health(engine: Engine, last_output: float = 0.0, timeout: float = 0.05, engines: int = 1) -> Health:
    admission: Any = SimpleNamespace(draining=False)
    return Health(engine, admission, lambda: last_output, timeout, engines)  # type: ignore[arg-type]


def test_a_token_shows_that_it_is_ready() -> None:
    async def run() -> None:
        engine = Engine()
        engine.answers.set()
        assert await health(engine).unready_reason() is None
        assert engine.asked == 1

    asyncio.run(run())


def test_no_token_is_asked_for_while_others_get_theirs() -> None:
    async def run() -> None:
        engine = Engine()
        assert await health(engine, time.monotonic()).unready_reason() is None
        assert engine.asked == 0
        assert await health(engine, time.monotonic() - FRESH_SECONDS).unready_reason() is not None
        assert engine.asked == 1

    asyncio.run(run())


def test_an_engine_that_hangs_is_not_ready_until_it_goes_on() -> None:
    async def run() -> None:
        engine = Engine()
        found = health(engine)
        assert "no token within 0.05 s" in str(await found.unready_reason())
        assert engine.given_up == 1  # the probe does not stay in the engine
        engine.answers.set()
        assert await found.unready_reason() is None

    asyncio.run(run())


def test_one_dead_engine_of_several_is_seen_although_others_answer() -> None:
    async def run() -> None:
        for dead, reason in ((frozenset({1}), "an engine made no token within 0.05 s"), (frozenset[int](), None)):
            engine = Engine(dead)
            engine.answers.set()
            assert await health(engine, time.monotonic(), engines=2).unready_reason() == reason
            assert (engine.asked, engine.given_up) == (2, len(dead))

    asyncio.run(run())


def test_probes_at_once_are_one() -> None:
    async def run() -> None:
        engine = Engine()
        found = health(engine, timeout=5)
        waiting = [asyncio.create_task(found.unready_reason()) for _ in range(10)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()  # a probe that gives up takes nothing from the others
        engine.answers.set()
        assert await asyncio.gather(*waiting[1:]) == [None] * 9
        assert engine.asked == 1

    asyncio.run(run())


def test_errors_draining_and_death_are_told_apart() -> None:
    async def run() -> None:
        engine = Engine()
        engine.fails = True
        engine.answers.set()
        found = health(engine)
        assert await found.unready_reason() == "the engine failed to make a token"
        found.admission.draining = True
        metrics.ENGINE_UP.set(1)
        assert await found.unready_reason() == "the server is shutting down"
        assert REGISTRY.get_sample_value("tokenformer_engine_up") == 1
        engine.errored = True
        assert await found.unready_reason() == "the engine has died"
        assert REGISTRY.get_sample_value("tokenformer_engine_up") == 0
        assert engine.asked == 1

    asyncio.run(run())
