"""Processes that the server starts obey only their parent, and do not outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import multiprocessing, os, signal, sys, time
from server.system import child_process
from server.process import head_start

def child():
    if sys.argv[1] == "nested":
        grandchild = multiprocessing.get_context("spawn").Process(target=tell, args=("grandchild",))
        grandchild.start()
    tell("child")

def tell(name):
    def leave(number, frame):
        say(f"{name} told")
        sys.exit(3)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)  # as vLLM does
    say(f"{name} {os.getpid()}")
    while True:
        time.sleep(0.05)

def say(text):
    os.write(1, f"{text}\\n".encode())

if __name__ == "__main__":
    child_process.protect_children()
    if sys.argv[1] == "forked":
        head_start.IMPORTED = ("json",)
        head_start.give_head_start(without=[])
        context = head_start.EngineContext()
    else:
        context = multiprocessing.get_context("spawn")
    process = context.Process(target=child)
    process.start()
    for line in sys.stdin:
        process.terminate()
        process.join()
        say(f"ended with {process.exitcode}")
"""


@contextmanager
def parent(tmp_path: Path, kind: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """The parent, in a process group of its own, and the last of those that it starts."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(script), kind]
    with subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes) as process:
        try:
            assert process.stdout is not None
            started = dict(process.stdout.readline().split() for _ in range(2 if kind == "nested" else 1))
            yield process, psutil.Process(int(started.get("grandchild", started["child"])))
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["forked", "spawned"])
def test_only_the_parent_can_tell_it_to_end(tmp_path: Path, kind: str) -> None:
    with parent(tmp_path, kind) as (process, child):
        assert process.stdin is not None
        assert process.stdout is not None
        for other in psutil.Process(process.pid).children(recursive=True):  # the fork server, too
            other.send_signal(signal.SIGTERM)
            other.send_signal(signal.SIGINT)
        with pytest.raises(psutil.TimeoutExpired):
            child.wait(1)
        process.stdin.write("end\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == ["child told\n", "ended with 3\n"]


@pytest.mark.parametrize("kind", ["forked", "spawned", "nested"])
def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path, kind: str) -> None:
    with parent(tmp_path, kind) as (process, _):
        others = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert not psutil.wait_procs(others, timeout=10)[1]


def test_signals_come_after_a_start(tmp_path: Path) -> None:
    """A process that is being started has them blocked; its parent gets them a moment later."""
    code = (
        "import os, signal\n"
        "from server.system.child_process import starting\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('told'))\n"
        "with starting():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('started')\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert told.stdout == "started\ntold\n"


def test_the_process_that_tries_grammars(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "server.engine.constraints.grammar_worker", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()}, **pipes) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGINT)
        print('{"kind": "lark", "grammar": "start: /a/"}', file=worker.stdin, flush=True)
        assert "start" in worker.stdout.readline()
        worker.stdin.close()
        assert worker.wait(30) == 0


FAILING = """
import multiprocessing, sys
from model_impl.engine import log_filter
from server.system import child_process, quiet

def fail(error):
    raise error

def log_and_return():
    log_filter.failed_starts.append(ValueError("no such tensor"))

def fail_as_its_child():
    child = multiprocessing.get_context("spawn").Process(target=fail, args=(ValueError("too little memory\\nlines"),))
    child.start()
    child.join()
    raise RuntimeError("see above")

if __name__ == "__main__":
    if sys.argv[1] == "quiet":
        quiet.keep_quiet()
    child_process.protect_children()
    context = multiprocessing.get_context("spawn")
    for target, args in (
        (fail, (KeyError("no such parser"),)), (log_and_return, ()), (fail_as_its_child, ()), (sys.exit, (3,))
    ):
        process = context.Process(target=target, args=args)
        process.start()
        process.join()
        print(process.exitcode, child_process.root_cause(RuntimeError("it failed")))
"""


@pytest.mark.parametrize("kind", ["quiet", "verbose"])
def test_a_child_tells_why_it_failed_and_only_a_verbose_one_shows_a_traceback(tmp_path: Path, kind: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(FAILING)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(script), kind]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert ended.stdout.splitlines() == [
        "1 KeyError: no such parser",
        "0 no such tensor",
        "1 too little memory",
        "3 it failed",
    ], ended.stderr
    assert ("Traceback" in ended.stderr) is (kind == "verbose")
