"""The conversation behind `tokenformer chat`, with a server that answers from a script."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from server.clients.chat import main
from tests.support import scripted as server
from tests.support.scripted import Break, chunk, last, scripted, token, words
from tests.support.servers import command_line, user_environment

EVIL = "x\x1b]0;pwned\x07\x9b2J\u202e"
SCRIPT: dict[str, Any] = {
    "hello": [*words(token("hi ", 0.1), token("you", 1.0)), last()],
    "markup": [*words(token("[bold]x[/bold] :smile: 12")), last()],
    "evil": [
        *words(token(EVIL)),
        last(growth={EVIL: 1.0}, spans=[{"start": 0, "end": 1, "text": EVIL, "risk": None, "reason": EVIL}]),
    ],
    "evil end": [{"error": {"message": EVIL, "code": 500}}],
    "lost": [*words(token("Half")), 0.1, Break.LOST],
    "slow": [*words(token("Half")), 60.0, *words(token("more")), last()],
    "silent": [60.0, *words(token("more")), last()],
    "ended": [*words(token("Half")), Break.ENDED],
    "not OpenAI's": [chunk("", delta=None)],
    "given up": [*words(token("Half")), {"error": {"message": "out of\nmemory", "code": 500}}],
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scripted(SCRIPT) as address:
        yield address


def piped(monkeypatch: pytest.MonkeyPatch, url: str, *lines: str, model: str | None = None) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return main(url, model, 0.0)


def test_each_answer_is_printed_as_it_is_above_its_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    assert piped(monkeypatch, address, "hello", "", "markup") == 0
    below = "  no risk: no calibration · highest entropy 0.50 nats · mean 0.50"
    said = capsys.readouterr()
    assert said.out.splitlines() == ["hi you", below, "[bold]x[/bold] :smile: 12", below]
    assert said.err == ""


@pytest.mark.parametrize(
    ("question", "shown", "why"),
    [
        ("lost", "Half\n", "the connection was lost before the answer was complete"),
        ("ended", "Half\n", "the connection ended before the answer was complete"),
        ("not OpenAI's", "\n", "the server does not answer as OpenAI's API does"),
        ("given up", "Half\n", "the server gave up: out of memory"),
        ("nonsense", "", "the server refused (400): I cannot answer nonsense"),
    ],
)
def test_each_failure_is_one_line_and_the_next_question_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
    question: str,
    shown: str,
    why: str,
) -> None:
    assert piped(monkeypatch, address, question, "hello") == 1
    said = capsys.readouterr()
    assert said.err == f"tokenformer: error: {why}\n"
    assert said.out.startswith(f"{shown}hi you\n")


@pytest.mark.parametrize(
    ("url", "model", "why"),
    [
        ("localhost:8000", None, "localhost:8000 is not a URL: it has to begin with http:// or https://"),
        ("http://", None, "http:// is not a URL: its host or port is wrong"),
        ("http://127.0.0.1:99999", None, "http://127.0.0.1:99999 is not a URL: its host or port is wrong"),
        ("http://\udcff", None, "http://\ufffd/v1 cannot be asked: Invalid IDNA hostname: '\\udcff'"),
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


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
@pytest.mark.parametrize("value", ["schlüssel", "\udcff", "sec\nret", "secret\n", " "])
def test_what_no_header_can_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert piped(monkeypatch, address, "hello") == 1
    why = f"{variable} may only hold printable ASCII characters, and no spaces or line breaks"
    assert capsys.readouterr().err == f"tokenformer: error: {why}\n"


@pytest.mark.parametrize(("variable", "value"), [("OPENAI_CUSTOM_HEADERS", "X-A: ü"), ("SSL_CERT_FILE", "/nowhere")])
def test_an_environment_that_the_client_cannot_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert piped(monkeypatch, address, "hello") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"tokenformer: error: {address}/v1 cannot be asked: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("temperature", ["nan", "inf"])
def test_a_temperature_that_json_cannot_hold(
    capsys: pytest.CaptureFixture[str], address: str, temperature: str
) -> None:
    assert main(address, None, float(temperature)) == 1
    assert capsys.readouterr().err == f"tokenformer: error: --temperature: {temperature} is not a finite number\n"


class SomethingElse(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")


def test_a_server_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SomethingElse) as web:
        threading.Thread(target=web.serve_forever).start()
        url = f"http://127.0.0.1:{web.server_port}"
        try:
            assert main(url, None, 0.0) == 1
        finally:
            web.shutdown()
    assert f"tokenformer: error: {url}/v1 does not answer as OpenAI's API does\n" in capsys.readouterr().err


def test_input_that_is_not_utf_8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    """One line says so, and the next question is still asked."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\nhello\n"), encoding="utf-8"))
    assert main(address, None, 0.0) == 1
    said = capsys.readouterr()
    assert said.err == "tokenformer: error: the input is not utf-8\n"
    assert said.out.startswith("hi you\n")


def run(address: str, shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`tokenformer chat` as a process, its streams as `shell` redirects them."""
    command = ["sh", "-c", f'"$@" {shell}', "sh", *command_line("chat", address)]
    given = user_environment() | environment
    return subprocess.run(command, input="hello\n", capture_output=True, text=True, timeout=120, env=given)


@pytest.mark.parametrize(
    ("shell", "why"),
    [
        ("<&-", "the standard input is closed"),
        (">&-", "the standard output is closed"),
        (">/dev/full", "the input or output failed: No space left on device"),
    ],
)
def test_a_closed_or_full_stream(address: str, shell: str, why: str) -> None:
    ended = run(address, shell)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"tokenformer: error: {why}\n")


def test_a_reader_that_goes_ends_it_silently(address: str) -> None:
    ended = run(address, "| true")
    assert (ended.stdout, ended.stderr) == ("", "")


def test_output_that_cannot_hold_every_character(address: str) -> None:
    ended = run(address, "", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("hi you\n  no risk: no calibration ? highest entropy")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_server_cannot_operate_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    """By nothing that it says: answers, stages, words to doubt, reasons, models and errors."""
    monkeypatch.setattr(server, "CARDS", [{"id": f"{EVIL}-model", "growth_stage": f"{EVIL}-stage"}])
    monkeypatch.setattr("sys.stdin", Terminal("evil\nevil end\n/model\n/model nope\n"))
    main(address, None, 0.0)
    said = capsys.readouterr()
    shown = "x\ufffd]0;pwned"
    assert sum(line.startswith(shown) for line in said.out.replace("> ", "").splitlines()) == 2  # greeting and answer
    for line in (f"growth {shown}", f"  {shown}", f"* {shown}"):
        assert line in said.out
    for line in (f"the server gave up: {shown}", f"there is no model nope; there are {shown}"):
        assert line in said.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said.out + said.err)


HELP_LINE = "/model lists the models, "


def test_commands_confirm_what_they_did_and_only_unknown_ones_print_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("/model m:base\n/new\n"))
    assert main(address, None, 0.0) == 0
    said = capsys.readouterr().out
    assert "m:base answers from now on; the conversation stays.\n" in said
    assert "The conversation is forgotten.\n" in said
    assert HELP_LINE not in said
    monkeypatch.setattr("sys.stdin", Terminal("/help\n/nonsense\n"))
    assert main(address, None, 0.0) == 0
    assert capsys.readouterr().out.count(HELP_LINE) == 2


@pytest.fixture
def interrupt_heeded() -> Iterator[None]:
    """SIGINT has its default effect on programs started now, as under a terminal: a background job passes on that it
    ignores it, and `make test` runs these tests in one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupt_heeded")
def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_program(address: str) -> None:
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = subprocess.Popen(command_line("chat", address), **streams, env=user_environment() | {"TERM": "dumb"})
    os.close(theirs)
    seen = b""

    def shows(what: bytes, seconds: float = 60) -> bool:
        """Whether the program writes this in time; what comes before is forgotten."""
        nonlocal seen
        deadline = time.monotonic() + seconds
        while what not in seen:
            ready, _, _ = select.select([ours], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                return False
            seen += os.read(ours, 4096)
        seen = seen.partition(what)[2]
        return True

    def interrupt() -> None:
        time.sleep(0.5)  # readline misses a signal in the instant before it waits for a key
        process.send_signal(signal.SIGINT)

    try:
        assert shows(b"> ")
        for question in (b"slow", b"silent"):
            os.write(ours, question + b"\n")
            assert shows(b"Half" if question == b"slow" else b"silent\r\n")
            interrupt()
            assert shows(b"The answer is stopped, and its question forgotten.\r\n> ")
        os.write(ours, b"hello\n")
        assert shows(b"hi you")
        assert shows(b"> ")
        interrupt()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
