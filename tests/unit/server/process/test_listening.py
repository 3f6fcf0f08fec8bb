"""A busy port is told before vLLM is imported, and nothing else is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from server.process.listening import PortError, check_port


@pytest.fixture(params=["127.0.0.1", "::1"])
def busy(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Flags of an address where another process listens."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listener = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    with listener:
        yield ["--host", request.param, "--port", str(listener.getsockname()[1])]


def test_a_port_that_another_process_has_is_named(busy: list[str]) -> None:
    with pytest.raises(PortError, match=rf"cannot listen on .*:{busy[-1]}: Address already in use"):
        check_port(["model", *busy, "--max-num-seqs=4"])


@pytest.mark.parametrize(
    "elsewhere",
    [
        *(["--uds", "socket"], ["--config=file.yaml"], ["--headless"], ["--api-server-count", "0"], ["--help=all"]),
        *(["--headl"], ["--por", "1"]),  # shortened, which vLLM's parser takes
    ],
)
def test_an_address_that_may_be_another_is_not_looked_at(busy: list[str], elsewhere: list[str]) -> None:
    check_port([*busy, *elsewhere])


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        check_port(["--host", "192.0.2.1", "--port", "0"])


@pytest.mark.parametrize("port", ["http", "99999", "-1"])
def test_malformed_ports_are_left_to_the_parser_of_vllm(port: str) -> None:
    check_port([f"--port={port}"])


def test_a_port_of_the_last_minutes_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()  # the side that closes first waits
    check_port(["--port", str(port)])
