"""Two machines: network namespaces of this one, joined by a cable. Servers in them see nothing else of the network.

Unix sockets do not belong to a network, so that a test reaches a server in a namespace by one.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.servers import Server, command_line, running

NUMBERS = itertools.count()


@dataclass(frozen=True)
class Node:
    """A machine, with its address and the name of its network interface."""

    namespace: str
    address: str
    interface: str

    def command(self, *arguments: object) -> list[str]:
        """`tokenformer` with `arguments` on this machine. Its hostname has no address, so that gloo, by which ranks on
        CPUs talk, is told the interface."""
        names = [f"VLLM_HOST_IP={self.address}", f"GLOO_SOCKET_IFNAME={self.interface}"]
        return ["ip", "netns", "exec", self.namespace, "env", *names, *command_line(*arguments)]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    """Skips the test where namespaces cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("needs the program ip (Debian: apt-get install iproute2)")
    names = [f"tokenformer-{os.getpid()}-{next(NUMBERS)}" for _ in range(2)]
    nodes = [Node(name, f"10.77.0.{number}", f"cable{number}") for number, name in enumerate(names, 1)]
    with ExitStack() as stack:
        for node in nodes:
            try:
                ip("netns", "add", node.namespace)
            except subprocess.CalledProcessError as error:
                if "not permitted" in error.stderr or "denied" in error.stderr:
                    pytest.skip("needs the right to make network namespaces, which root has")
                raise
            stack.callback(ip, "netns", "delete", node.namespace)  # and the end of the cable in it
        one, two = nodes
        ends = [one.interface, "netns", one.namespace, "type", "veth", "peer", two.interface, "netns", two.namespace]
        ip("link", "add", *ends)
        for node in nodes:
            ip("-n", node.namespace, "address", "add", f"{node.address}/24", "dev", node.interface)
            ip("-n", node.namespace, "link", "set", node.interface, "up")
            ip("-n", node.namespace, "link", "set", "lo", "up")
        yield one, two


@contextmanager
def spread(
    checkpoint: Path, root: Path, flags: Sequence[object], leader: Sequence[object], follower: Sequence[object]
) -> Iterator[tuple[Server, Server]]:
    """A server on two machines. `flags` go to both commands, `leader` and `follower` to one each. It listens at the
    Unix socket `root`/socket."""
    with two_nodes() as (one, two), ExitStack() as stack:
        socket = root / "socket"
        first = one.command("serve", checkpoint, *flags, *leader, "--uds", socket)
        second = two.command("serve", checkpoint, *flags, *follower, "--headless")
        leading = stack.enter_context(running(first, 0, root / "leader.log", checkpoint.name, socket))
        following = stack.enter_context(running(second, 0, root / "follower.log", checkpoint.name))
        yield leading, following
