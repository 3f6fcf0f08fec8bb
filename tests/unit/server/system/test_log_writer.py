"""Programs whose output nobody reads, as processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = """
import logging, subprocess, sys
from server.system.log_writer import protect_output
logging.basicConfig()
protect_output()
for number in range({count}):
    print("line", number, file=sys.stderr, flush=True)
    sys.stderr.buffer.write(b"bytes %d " % number + b"x" * {size} + b"\\n")
    sys.stderr.buffer.flush()
    logging.warning("logged %d", number)
print("to the other stream")
subprocess.run([sys.executable, "-c", "print('of a child', flush=True)"], check=True)
print("last", file=sys.stderr)
"""

FEW = PROGRAM.format(count=3, size=10)
MUCH = PROGRAM.format(count=2000, size=20_000)
SECONDS = 60


@contextmanager
def run(program: str, stdout: int, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=stdout, stderr=stderr)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_is_said_arrives_in_its_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, run(FEW, log.fileno(), log.fileno()) as process:
        assert process.wait(SECONDS) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    said = [line for number in range(3) for line in (f"line {number}", f"WARNING:root:logged {number}")]
    assert [line for line in lines if line.startswith(("line", "WARNING"))] == said
    assert {"to the other stream", "of a child", "last"} <= set(lines)


def test_streams_stay_apart() -> None:
    found = subprocess.run([sys.executable, "-c", FEW], capture_output=True, timeout=SECONDS, check=True)
    assert sorted(found.stdout.splitlines()) == [b"of a child", b"to the other stream"]
    assert found.stderr.splitlines()[-1] == b"last"
    assert found.stderr.count(b"\n") == 10


def test_a_failure_is_said_before_the_end() -> None:
    program = FEW + "raise RuntimeError('the reason')"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=SECONDS)
    assert found.returncode == 1
    assert found.stderr.endswith(b"RuntimeError: the reason\n")


def test_a_full_disk() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with run(MUCH, full, full) as process:
        assert process.wait(SECONDS) == 0
    os.close(full)


def test_a_reader_that_goes() -> None:
    source, inlet = os.pipe()
    with run(MUCH, inlet, inlet) as process:
        os.close(inlet)
        assert os.read(source, 100)
        os.close(source)
        assert process.wait(SECONDS) == 0


def test_a_reader_that_stalls() -> None:
    source, inlet = os.pipe()
    with run(MUCH, inlet, inlet) as process:
        assert process.wait(SECONDS) == 0  # 40 MB have gone by, and nobody has read a byte
    os.close(inlet)
    os.close(source)


def test_a_reader_that_stalls_and_goes_on_is_told_how_much_is_missing() -> None:
    source, inlet = os.pipe()
    program = MUCH + "import time; sys.stdout.flush(); time.sleep(5); print('after', file=sys.stderr)"
    with run(program, inlet, inlet) as process:
        os.close(inlet)
        time.sleep(3)
        with os.fdopen(source, "rb") as reader:
            text = reader.read()
        assert process.wait(SECONDS) == 0
    assert b"\ntokenformer: warning: " in text and b" bytes of log could not be written\n" in text
    assert text.endswith(b"after\n")
    assert len(text) < 20 << 20


@pytest.mark.parametrize("closed", ["1>&-", "2>&-"])
def test_a_stream_that_is_closed(closed: str) -> None:
    command = f"'{sys.executable}' -c 'from server.system.log_writer import protect_output; protect_output()' {closed}"
    assert subprocess.run(command, shell=True, timeout=SECONDS).returncode == 0
