"""A look at the address before vLLM is imported, which takes ten seconds and more."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from collections.abc import Sequence

from model_impl.one_line_error import OneLineError
from server.engine.settings import HOST, PORT


class PortError(OneLineError):
    """The server cannot listen on its address."""


def cannot_listen(place: str, error: OSError) -> str:
    return f"cannot listen on {place}: {error.strerror or error}"


def check_port(argv: Sequence[str]) -> None:
    """Raises PortError if the address that the flags name cannot be listened on. vLLM's parser, which is not there yet,
    tells of malformed flags; a socket's file, a file of flags and an engine without an API are not looked at."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=PORT)
    for elsewhere in ("--uds", "--config"):
        parser.add_argument(elsewhere)
    parser.add_argument("--headless", action="store_true")
    try:
        named, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError:
        return
    if named.uds or named.config or named.headless:
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


def is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
