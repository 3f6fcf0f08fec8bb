"""The conversation behind `tokenformer chat`, with a server that answers from a script."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from server.chat import main
from tests.scripted import Break, last, scripted, token, words

SCRIPT: dict[str, Any] = {
    "hello": [*words(token("hi ", 0.1), token("you", 1.0)), last()],
    "markup": [*words(token("[bold]x[/bold] :smile: 12")), last()],
    "lost": [*words(token("Half")), 0.1, Break.LOST],
    "ended": [*words(token("Half")), Break.ENDED],
    "given up": [*words(token("Half")), {"error": {"message": "out of\nmemory", "code": 500}}],
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scripted(SCRIPT) as address:
        yield address


def piped(monkeypatch: pytest.MonkeyPatch, url: str, *lines: str, model: str | None = None) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return main(url, model, 0.0)


def test_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert piped(monkeypatch, address, "hello", "", "markup") == 0
    below = "  not calibrated · highest entropy 0.50 nats · mean 0.50"
    said = capsys.readouterr()
    assert said.out.splitlines() == ["hi you", below, "[bold]x[/bold] :smile: 12", below]
    assert said.err == ""


@pytest.mark.parametrize(
    ("question", "shown", "why"),
    [
        ("lost", "Half\n", "the connection was lost before the answer was complete"),
        ("ended", "Half\n", "the connection ended before the answer was complete"),
        ("given up", "Half\n", "the server gave up: out of memory"),
        ("nonsense", "", "the server refused (400): I cannot answer nonsense"),
    ],
)
def test_failures(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
    question: str,
    shown: str,
    why: str,
) -> None:
    """One line each, and the next question is asked all the same."""
    assert piped(monkeypatch, address, question, "hello") == 1
    said = capsys.readouterr()
    assert said.err == f"tokenformer: error: {why}\n"
    assert said.out.startswith(f"{shown}hi you\n")


@pytest.mark.parametrize(
    ("url", "model", "why"),
    [
        ("localhost:8000", None, "localhost:8000 is not a URL: it has to begin with http:// or https://"),
        ("http://127.0.0.1:1", None, "http://127.0.0.1:1/v1 cannot be reached"),
        (None, "nope", "there is no model nope; there are m, m:base"),
    ],
)
def test_what_cannot_even_start(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
    url: str | None,
    model: str | None,
    why: str,
) -> None:
    assert piped(monkeypatch, url or address, "hello", model=model) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {why}\n"


def test_the_api_key_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(SCRIPT, api_key="secret") as address:
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        assert piped(monkeypatch, address, "hello") == 0
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        assert piped(monkeypatch, address, "hello") == 1
    refused = "tokenformer: error: the server refused (401): Unauthorized (is OPENAI_API_KEY right?)\n"
    assert capsys.readouterr().err == refused
