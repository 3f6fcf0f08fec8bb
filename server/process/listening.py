"""A look at the address before vLLM is imported, which takes ten seconds and more."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from collections.abc import Sequence

from model_impl.one_line_error import OneLineError
from server.engine.settings import HOST, PORT

ADDRESS = ("--host", "--port")
ELSEWHERE = ("--uds", "--config", "--headless", "--api-server-count", "-asc", "--help", "-h")
"""Flags by which the server listens at no port, or at one that only vLLM can tell."""


class PortError(OneLineError):
    """The server cannot listen on its address."""


def cannot_listen(place: str, error: OSError) -> str:
    return f"cannot listen on {place}: {error.strerror or error}"


def check_port(argv: Sequence[str]) -> None:
    """Raises PortError if the address that the flags name cannot be listened on.

    Whatever needs vLLM's parser, which is not there yet, is left to it: malformed and shortened flags, and `ELSEWHERE`.
    """
    names = [flag.partition("=")[0] for flag in argv]
    if any(name in ELSEWHERE or is_shortened(name) for name in names):
        return
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=PORT)
    try:
        named, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError:
        return
    family = socket.AF_INET6 if is_ipv6(named.host) else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else ports of the last minutes are still taken
        try:
            trial.bind((named.host, named.port))
        except OSError as error:
            raise PortError(cannot_listen(f"{named.host}:{named.port}", error)) from error
        except OverflowError:  # no such port
            return


def is_shortened(flag: str) -> bool:
    """Whether vLLM's parser may take it for one of these."""
    return flag.startswith("--") and any(name.startswith(flag) and name != flag for name in (*ADDRESS, *ELSEWHERE))


def is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
