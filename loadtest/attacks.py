"""Attacks of the soak: small costly requests, held connections, endless bodies."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.faults.costly import EMPTY, TOO_LARGE
from tests.faults.held import CHUNKED, DRIPS, HEADERS

HELD = 100
"""Connections of one client that holds them."""
HELD_SECONDS = 3.0

BODY = 4 << 20

HOLDS = [
    *DRIPS.values(),
    (f"POST /v1/completions HTTP/1.1\r\ncontent-length: {BODY}\r\n".encode() + HEADERS + b"\r\n", b"x" * (BODY // 10)),
]
"""The beginning of a connection, and the bytes that follow again and again."""


@dataclass
class Attacks:
    """Attackers without a pause; `over` ends them."""

    http: httpx.AsyncClient
    over: Callable[[], bool]
    random: random.Random
    made: Counter[str] = field(default_factory=Counter)
    taken: list[str] = field(default_factory=list)
    """Costly requests that were not refused."""

    async def costly(self) -> None:
        """Each is refused, or turned away because the server is full."""
        while not self.over():
            route, body, _ = self.random.choice([*EMPTY, *TOO_LARGE])
            answer = await self.http.post(route, json=body)
            self.made["costly"] += 1
            if answer.status_code not in (400, 429):
                self.taken.append(f"{answer.status_code} {route} {str(body)[:80]}")

    async def holding(self) -> None:
        """Many connections that drip, until the server closes them or this client goes."""
        while not self.over():
            begun, drip = self.random.choice(HOLDS)
            await asyncio.gather(*(self._hold(begun, drip) for _ in range(HELD)))
            self.made["held"] += HELD

    async def trailers(self) -> None:
        """Trailers without an end after a response."""
        lines = b"".join(b"t-%d: x\r\n" % i for i in range(3000))
        while not self.over():
            await self._hold(CHUNKED + b"2\r\n{}\r\n0\r\n", lines)
            self.made["trailers"] += 1

    async def _hold(self, begun: bytes, drip: bytes) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(HELD_SECONDS):
                _, writer = await asyncio.open_connection(self.http.base_url.host, self.http.base_url.port)
                try:
                    writer.write(begun)
                    while not writer.is_closing():
                        await writer.drain()
                        writer.write(drip)
                        await asyncio.sleep(0.1)
                finally:
                    writer.transport.abort()
