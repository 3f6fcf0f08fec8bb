"""How many connections a process holds at once, and which one goes when another comes."""

from __future__ import annotations

import resource
from collections import OrderedDict
from typing import Protocol

import psutil

MAX_CONNECTIONS = 4096
SPARE_DESCRIPTORS = 64
"""For what the process opens beside connections: files, sockets to the engine, pipes to processes that it starts."""

PROBE_CONNECTIONS = 16
"""Kept free of other requests, so that probes are answered however many there are."""


class Holder(Protocol):
    """A connection that can be ended at once."""

    def give_up(self) -> None: ...


class ConnectionLimit:
    """The connections of a process: those whose client has to do something wait, in the order in which they began to.

    When there is no place for one that comes, the one that has waited longest goes: it costs nothing but its client
    another connection. So whoever holds connections cannot keep others out.
    """

    def __init__(self, limit: int = MAX_CONNECTIONS) -> None:
        self.limit = limit
        self.waiting: OrderedDict[Holder, None] = OrderedDict()

    def fit_descriptors(self) -> None:
        """Take on no more than this process can open now."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft != resource.RLIM_INFINITY:
            free = soft - psutil.Process().num_fds() - SPARE_DESCRIPTORS
            self.limit = min(MAX_CONNECTIONS, max(free, 2 * PROBE_CONNECTIONS))

    def take(self, holder: Holder, count: int) -> bool:
        """Whether there is a place for `holder`, which is counted in `count` already. It waits for its request."""
        if count > self.limit:
            if not self.waiting:
                return False
            oldest, _ = self.waiting.popitem(last=False)
            oldest.give_up()
        self.waiting[holder] = None
        return True

    def wait(self, holder: Holder) -> None:
        """`holder` waits for its client, since now unless it has already waited."""
        self.waiting.setdefault(holder)

    def keep(self, holder: Holder) -> None:
        """`holder` is being answered."""
        self.waiting.pop(holder, None)

    leave = keep

    def crowded(self, count: int) -> bool:
        """Whether so many of `count` connections are being answered that the rest is for probes."""
        return count - len(self.waiting) >= self.limit - PROBE_CONNECTIONS
