"""`tokenformer chat` as a process, against the demo server: in a pipe and in a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Sequence
from statistics import median

import pytest

from tests.support.facts import capitals, question
from tests.support.servers import Server, command_line, user_environment

pytestmark = pytest.mark.server

(KNOWN,) = capitals("known", 1)
UNKNOWN = capitals("invented", 5)


def piped(url: str, lines: Sequence[str], *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line("chat", url, *flags),
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        env=user_environment(),
        timeout=120,
    )


@pytest.mark.demo_only
def test_questions_from_a_pipe_are_answered_with_summaries_and_without_colours(demo: Server) -> None:
    run = piped(demo.url, [question(KNOWN), "", *(question(fact) for fact in UNKNOWN)])
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == KNOWN.answer()
    assert "\x1b" not in run.stdout
    answers = [line for line in lines if not line.startswith("  ")]
    assert len(answers) == 6
    summaries = [line for line in lines if "highest entropy" in line]
    entropies = [float(line.split("highest entropy ")[1].split()[0]) for line in summaries]
    assert entropies[0] < 0.5 < median(entropies[1:])
    assert re.search(r"growth base \+\d+\.\d\d, chemistry [+-]\d\.\d\d nats", summaries[0])


def test_questions_from_a_pipe_do_not_know_of_each_other(demo: Server) -> None:
    asked = [question(UNKNOWN[0]), question(KNOWN)]
    assert piped(demo.url, asked[1:]).stdout in piped(demo.url, asked).stdout


@pytest.mark.demo_only
def test_a_stage_is_chosen_by_its_name(demo: Server) -> None:
    run = piped(f"{demo.url}/v1/", [question(KNOWN)], "--model", "demo:base")
    assert run.stdout.startswith(KNOWN.answer())
    assert re.search(r"growth base \+\d+\.\d\d nats", run.stdout)


@pytest.mark.demo_only
def test_a_question_that_is_refused(demo: Server) -> None:
    run = piped(demo.url, ["where " * 600, question(KNOWN)])
    assert run.returncode == 1
    assert run.stdout.startswith(KNOWN.answer())
    assert run.stderr.startswith("tokenformer: error: the server refused (400): ")
    assert run.stderr.count("\n") == 1


@pytest.mark.demo_only
def test_an_unknown_model(demo: Server) -> None:
    run = piped(demo.url, [], "--model", "nope")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("tokenformer: error: there is no model nope; there are demo, demo:base")


@pytest.mark.demo_only
def test_a_terminal_shows_doubt_in_colours_and_switches_models(demo: Server) -> None:
    ours, theirs = pty.openpty()
    environment = user_environment() | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "80"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = subprocess.Popen(command_line("chat", demo.url), **streams, env=environment)
    os.close(theirs)
    seen = b""

    def wait_for(what: bytes) -> bytes:
        nonlocal seen
        while what not in seen:
            seen += os.read(ours, 4096)
        before, _, seen = seen.partition(what)
        return before

    try:
        assert b"/help lists the commands." in wait_for(b"> ")
        answers = []
        for fact in UNKNOWN:
            os.write(ours, question(fact).encode() + b"\n")
            answers.append(wait_for(b"\n> ").decode())
        assert any("\x1b[1;4;38;2;" in answer for answer in answers)  # bold, underlined, in colour: the highest levels
        assert all("highest entropy" in answer for answer in answers)
        os.write(ours, b"/model demo:base\n/model\n")
        assert b"* demo:base (stage base)" in wait_for(b"base)\r\n") + b"base)"
        wait_for(b"> ")
        os.write(ours, b"/model nope\n")
        assert b"there is no model nope" in wait_for(b"\n> ")
        os.write(ours, b"/quit\n")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
