"""A victim: a client whose greedy streams must not change, and hardly stall, while somebody attacks the server.

A test lets the victim read beside a harmless load, and then beside an attack:

    calm = beside(server, victim_body, harmless)
    attacked = beside(server, victim_body, attack)
    check(calm, attacked)
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from tests.support.servers import Server

STALL_SECONDS = 4.0
"""Longest silence of a stream, above that beside a harmless load. An idle machine keeps within a quarter of a second;
machines that run tests may be shared by six times as many processes as they have cores."""

KEPT_BYTES = 100 << 20
"""Memory that an attack may leave behind in a process of the server."""

SETTLE_SECONDS = 30.0
"""Seconds for memory to be given back."""


@dataclass
class Heard:
    """The chunks that a victim received, over all its streams."""

    texts: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    """Seconds between a request and its first event, and between events."""
    kept: dict[str, int] = field(default_factory=dict)
    """Process -> bytes by which it has grown."""

    @property
    def longest(self) -> float:
        return max(self.gaps)


class Victim(threading.Thread):
    """Asks for the same stream again and again until `stop` is called, and at least once to the end."""

    def __init__(self, server: Server, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(daemon=True)
        self.url, self.body, self.headers = f"{server.url}/v1/completions", body | {"stream": True}, headers
        self.heard = Heard()
        self.stopped = threading.Event()

    def run(self) -> None:
        with httpx.Client(timeout=300, headers=self.headers) as client:
            while not self.stopped.is_set() or not self.heard.texts:
                self._listen(client)

    def _listen(self, client: httpx.Client) -> None:
        text, last = "", time.perf_counter()
        with client.stream("POST", self.url, json=self.body) as response:
            self.heard.statuses.append(response.status_code)
            if response.status_code != 200:
                time.sleep(0.05)  # turned away, and told to come again
                return
            for line in response.iter_lines():
                if not line.startswith("data: {"):
                    continue
                now = time.perf_counter()
                self.heard.gaps.append(now - last)
                last = now
                event = json.loads(line.removeprefix("data: "))
                text += "".join(choice["text"] for choice in event.get("choices", ()))
        self.heard.texts.add(text)

    def stop(self) -> Heard:
        self.stopped.set()
        self.join(300)
        assert not self.is_alive(), "the victim waits for ever"
        return self.heard


def resident(server: Server) -> dict[str, int]:
    """Bytes of every process of a server."""
    own = psutil.Process(server.process.pid)
    return {f"{process.name()} {process.pid}": process.memory_info().rss for process in (own, *own.children(True))}


def beside(
    server: Server, body: dict[str, Any], load: Callable[[], None], headers: dict[str, str] | None = None
) -> Heard:
    """The chunks that a victim receives while `load` runs, and the growth of memory."""
    before = resident(server)
    victim = Victim(server, body, headers)
    victim.start()
    try:
        load()
    finally:
        heard = victim.stop()
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        now = resident(server)
        heard.kept = {name: now[name] - size for name, size in before.items() if name in now}
        if max(heard.kept.values()) < KEPT_BYTES or time.monotonic() > deadline:
            return heard
        time.sleep(0.5)


def check(calm: Heard, attacked: Heard) -> None:
    """Assert that an attack did not change the victim's answers, delay them, or leave memory behind."""
    print(f"longest silence: {calm.longest:.3f} s beside a harmless load, {attacked.longest:.3f} s under attack")
    print(f"kept: { ({name: size >> 20 for name, size in attacked.kept.items()}) } MiB")
    assert set(attacked.statuses) == {200}
    assert attacked.texts == calm.texts
    assert len(calm.texts) == 1
    assert attacked.longest < calm.longest + STALL_SECONDS
    assert max(attacked.kept.values()) < KEPT_BYTES
