"""The router in front of replicas: nginx with deploy/nginx, before two servers that answer from a script."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from fastapi.responses import JSONResponse

from server.process.flags import MAX_BODY_BYTES
from tests.deploy.promql import DEPLOY
from tests.support.ports import free_ports
from tests.support.raw_server import running
from tests.support.scripted import Break, chunk, scripted

CONFIGURATION = DEPLOY / "nginx" / "tokenformer.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")  # which is not on everyone's PATH
SESSIONS = [f"session {number}" for number in range(20)]
PAUSE = 0.5
"""Seconds between the two chunks of a slow answer."""

nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx; on Debian: apt-get install nginx-light")


def lines(name: str) -> list[str]:
    """The values of every directive of this name."""
    return re.findall(rf"^\s*{name}\s+(.+);", CONFIGURATION.read_text(), re.MULTILINE)


@contextmanager
def routed(directory: Path, *replicas: str) -> Iterator[httpx.Client]:
    """A client of nginx with our configuration, whose addresses alone are changed."""
    (port,) = free_ports(1)
    text = CONFIGURATION.read_text().replace(f"listen {lines('listen')[0]}", f"listen 127.0.0.1:{port}")
    for given, replica in zip(lines("server"), replicas, strict=True):
        text = text.replace(given.split()[0], replica.removeprefix("http://"))
    (directory / "tokenformer.conf").write_text(text)
    paths = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = directory / "nginx.conf"
    main.write_text(
        f"user root;\ndaemon off;\npid {directory}/pid;\nerror_log {directory}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}include {directory}/tokenformer.conf;\n}}\n"
    )
    command = [str(NGINX), "-c", str(main), "-p", str(directory)]
    process = subprocess.Popen([*command, "-e", str(directory / "error.log")], start_new_session=True)
    try:
        wait(port, process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client
    finally:
        process.terminate()
        process.wait(10)


def wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, "nginx refuses the configuration"
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)  # between two looks at a process that starts
    raise TimeoutError("nginx did not listen")


@contextmanager
def refusing(status: int) -> Iterator[str]:
    """The address of a replica that takes no request."""
    with running(JSONResponse({"error": {}}, status, {"Retry-After": "7"}), log_level="critical") as port:
        yield f"http://127.0.0.1:{port}"


def script(name: str) -> dict[str, list[object]]:
    return {"who": [chunk(name)], "slow": [chunk(name), PAUSE, chunk(name)], "lost": [chunk(name), Break.LOST]}


def ask(client: httpx.Client, question: str = "who", session: str | None = None) -> httpx.Response:
    headers = {"X-Session-ID": session} if session else {}
    body = {"messages": [{"role": "user", "content": question}]}
    return client.post("/v1/chat/completions", json=body, headers=headers)


def replica(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    (name,) = re.findall(r"replica \w+", answer.text)
    return str(name)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[httpx.Client]:
    with scripted(script("replica a")) as a, scripted(script("replica b")) as b, routed(tmp_path, a, b) as client:
        yield client


@nginx
def test_a_session_stays_with_its_replica_and_sessions_are_spread(two: httpx.Client) -> None:
    first = {session: replica(ask(two, session=session)) for session in SESSIONS}
    assert {session: replica(ask(two, session=session)) for session in reversed(SESSIONS)} == first
    assert min(Counter(first.values()).values()) >= 5
    assert len(set(first.values())) == 2


@nginx
def test_requests_without_a_session_are_spread(two: httpx.Client) -> None:
    assert min(Counter(replica(ask(two)) for _ in SESSIONS).values()) >= 3


@nginx
def test_the_chunks_of_a_stream_pass_as_they_come(two: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "slow"}]}
    with two.stream("POST", "/v1/chat/completions", json=body) as answer:
        times = [time.monotonic() for line in answer.iter_lines() if "replica" in line]
    first, second = times
    assert second - first > PAUSE / 2


@nginx
def test_the_sessions_of_a_dead_replica_go_to_the_other_and_those_of_the_living_stay(tmp_path: Path) -> None:
    with ExitStack() as dying, scripted(script("replica a")) as a:
        b = dying.enter_context(scripted(script("replica b")))
        with routed(tmp_path, a, b) as client:
            assert {replica(ask(client, session=session)) for session in SESSIONS} == {"replica a", "replica b"}
            dying.close()
            assert {replica(ask(client, session=session)) for session in SESSIONS} == {"replica a"}


@nginx
def test_without_a_replica_the_answer_is_an_error_that_clients_try_again(tmp_path: Path) -> None:
    with routed(tmp_path, *(f"http://127.0.0.1:{port}" for port in free_ports(2))) as client:
        answer = ask(client)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "no_replica"


@nginx
def test_a_full_replica_refuses_by_itself_and_says_when_to_come_again(tmp_path: Path) -> None:
    # Another replica would compute the whole conversation anew.
    with refusing(429) as full, scripted(script("replica b")) as b, routed(tmp_path, full, b) as client:
        answers = [ask(client, session=session) for session in SESSIONS]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 429} == {"7"}


@nginx
def test_a_replica_that_shuts_down_is_left_for_the_other(tmp_path: Path) -> None:
    with refusing(503) as draining, scripted(script("replica b")) as b, routed(tmp_path, draining, b) as client:
        assert {replica(ask(client, session=session)) for session in SESSIONS} == {"replica b"}


@nginx
def test_where_all_replicas_refuse_their_answer_passes(tmp_path: Path) -> None:
    with refusing(503) as a, refusing(503) as b, routed(tmp_path, a, b) as client:
        answer = ask(client)
    assert (answer.status_code, answer.headers["retry-after"], answer.json()) == (503, "7", {"error": {}})


@nginx
def test_errors_of_a_replica_pass_with_their_body(two: httpx.Client) -> None:
    answer = ask(two, "unknown")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


@nginx
def test_probes_and_metrics_are_those_of_no_replica(two: httpx.Client) -> None:
    assert {two.get(path).status_code for path in ("/livez", "/readyz", "/health", "/metrics")} == {404}
    assert two.get("/v1/models").status_code == 200


def test_bodies_are_as_large_as_the_server_takes() -> None:
    (most,) = lines("client_max_body_size")
    assert int(most.split(";")[0].removesuffix("m")) << 20 == MAX_BODY_BYTES
