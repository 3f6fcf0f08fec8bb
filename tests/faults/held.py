"""Bytes by which clients hold a connection without a complete request."""

from __future__ import annotations

HEADERS = b"host: 127.0.0.1\r\ncontent-type: application/json\r\n"
CHUNKED = b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + HEADERS + b"\r\n"

DRIPS = {
    "nothing": (b"", b""),
    "blank lines": (b"GET /livez HTTP/1.1\r\n" + HEADERS + b"\r\n", b"\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
    "an extension": (CHUNKED + b"1", b";a=b"),
    "a handshake": (
        b"POST /livez HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n" + HEADERS + b"\r\n",
        b"x",
    ),
}
"""Name -> the beginning of a connection, and the bytes that follow again and again."""
