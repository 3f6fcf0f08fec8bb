"""Signals before the server is ready, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from argparse import Namespace

import pytest

from server.process.early_signals import is_alone

ASK = """
import os, signal, sys, time
from multiprocessing import resource_tracker
from server.process.early_signals import EarlySignals

def interrupt(number, frame):
    raise KeyboardInterrupt("as vLLM's handler does")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ASK + program], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_whatever_handlers_there_are(number: signal.Signals) -> None:
    ended = run(f"""
with EarlySignals():
    signal.signal({number}, interrupt)
    import numpy, torch  # which start threads
    resource_tracker.ensure_running()
    os.kill(os.getpid(), {number})
    time.sleep(50)
""")
    assert ended.returncode == 128 + number
    assert ended.stderr == "tokenformer: told to stop before it was ready\n"


def test_a_semaphore_of_a_start_that_ends_is_removed_without_a_word() -> None:
    """A second process, the resource tracker, removes it."""
    ended = run("""
with EarlySignals():
    import multiprocessing
    lock = multiprocessing.get_context("spawn").Lock()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(50)
""")
    assert ended.stderr == "tokenformer: told to stop before it was ready\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_the_start_handlers_get_the_signal(number: signal.Signals) -> None:
    ended = run(f"""
with EarlySignals() as early:
    signal.signal({number}, lambda number, frame: sys.exit(7))
    early.stop()
    early.stop()
    os.kill(os.getpid(), {number})
    time.sleep(50)
""")
    assert (ended.returncode, ended.stderr) == (7, "")


@pytest.mark.parametrize(
    ("flags", "alone"),
    [
        ({}, True),
        ({"api_server_count": 1}, True),
        ({"api_server_count": 2}, False),
        ({"data_parallel_size": 2}, False),
        ({"headless": True}, False),
    ],
)
def test_vllm_handles_signals_where_this_is_not_the_only_api_process(flags: dict[str, object], alone: bool) -> None:
    assert (
        is_alone(Namespace(**{"api_server_count": None, "data_parallel_size": 1, "headless": False} | flags)) is alone
    )
