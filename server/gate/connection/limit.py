"""The number of connections of a process, and which one makes room for another."""

from __future__ import annotations

import resource
from collections import OrderedDict
from typing import Protocol

import psutil

MAX_CONNECTIONS = 4096
SPARE_DESCRIPTORS = 64
"""Descriptors for everything else: files, sockets to the engine, pipes to child processes."""

PROBE_CONNECTIONS = 16
"""Reserved for probes, so that they are answered under any load."""


class Holder(Protocol):
    """A connection that can be ended at once."""

    def give_up(self) -> None: ...


class ConnectionLimit:
    """The connections of a process. Those that wait for their client are kept in the order in which they began to wait.

    A new connection without a free place replaces the one that has waited longest, whose client can connect again. So
    idle connections cannot keep others out.
    """

    def __init__(self, limit: int = MAX_CONNECTIONS) -> None:
        self.limit = limit
        self.waiting: OrderedDict[Holder, None] = OrderedDict()

    def fit_descriptors(self) -> None:
        """Lower the limit to the descriptors that this process can still open."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft != resource.RLIM_INFINITY:
            free = soft - psutil.Process().num_fds() - SPARE_DESCRIPTORS
            self.limit = min(MAX_CONNECTIONS, max(free, 2 * PROBE_CONNECTIONS))

    def take(self, holder: Holder, count: int) -> bool:
        """Whether there is a place for `holder`, which `count` includes; it then waits for its request."""
        if count > self.limit:
            if not self.waiting:
                return False
            oldest, _ = self.waiting.popitem(last=False)
            oldest.give_up()
        self.waiting[holder] = None
        return True

    def wait(self, holder: Holder) -> None:
        """`holder` waits for its client, from now on unless it waits already."""
        self.waiting.setdefault(holder)

    def keep(self, holder: Holder) -> None:
        """`holder` is being answered."""
        self.waiting.pop(holder, None)

    leave = keep

    def crowded(self, count: int) -> bool:
        """Whether only the places for probes are left, with `count` connections."""
        return count - len(self.waiting) >= self.limit - PROBE_CONNECTIONS
