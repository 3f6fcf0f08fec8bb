"""The socket answers while the engine starts, and is handed on without losing anybody."""

from __future__ import annotations

import json
import socket
import threading

import httpx

from server.process.waiting_room import WaitingRoom


def listener() -> socket.socket:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


def test_visitors_are_told() -> None:
    bound = listener()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    with bound, WaitingRoom(bound):
        assert httpx.get(f"{url}/livez").status_code == 200
        for path in ("/readyz", "/health"):
            waiting = httpx.get(url + path)
            assert waiting.status_code == 503
            assert "starting" in waiting.json()["reason"]
        refused = httpx.post(f"{url}/v1/chat/completions", content=b"x" * 200_000)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "2"
        assert refused.json()["error"]["code"] == "starting"
        assert httpx.head(f"{url}/readyz").status_code == 503
        assert httpx.request("PATCH", f"{url}/v1/models").status_code == 503


def test_a_visitor_that_says_nothing_keeps_nobody() -> None:
    bound = listener()
    with bound, WaitingRoom(bound) as room, socket.create_connection(bound.getsockname()):
        assert httpx.get(f"http://127.0.0.1:{bound.getsockname()[1]}/livez").status_code == 200
        room.close()
        assert not room.thread.is_alive()


def test_who_comes_after_it_has_closed_is_served_by_the_next() -> None:
    bound = listener()
    with bound, WaitingRoom(bound) as room:
        room.close()
        room.close()
        with socket.create_connection(bound.getsockname()) as visitor:  # waits: the socket still listens
            visitor.sendall(b"hello")
            served, _ = bound.accept()
            assert served.recv(5) == b"hello"
            served.close()


def test_it_starts_no_thread_that_outlives_it() -> None:
    before = threading.active_count()
    bound = listener()
    with bound, WaitingRoom(bound):
        assert json.loads(httpx.get(f"http://127.0.0.1:{bound.getsockname()[1]}/livez").text) == {"status": "alive"}
    assert threading.active_count() <= before + 1  # the visitor's may still be on its way out
