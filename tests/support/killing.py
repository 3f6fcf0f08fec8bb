"""kill -9 at random moments."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

MOMENTS = 8


def assert_survives_kills(write: Callable[..., Any], source: Path, dest: Path, *arguments: Any) -> None:
    """Run `write(source, dest, *arguments)` in a process of its own, again and again, and kill it while it writes.

    `dest`, in a directory of its own, must be absent or whole each time; some of the kills must leave a partial
    directory behind, or they came too early or too late to say anything. `write` must always write the same bytes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([write.__module__])
    dest.parent.mkdir()
    whole, seconds = _run(context.Process(target=_call, args=(write, source, dest, *arguments)), dest, wait=None)
    assert whole
    generator, midway = random.Random(5), 0
    for _ in range(MOMENTS):
        process = context.Process(target=_call, args=(write, source, dest, *arguments))
        found, ran = _run(process, dest, wait=generator.uniform(0, seconds))
        assert found in ({}, whole)
        if found:
            seconds = min(seconds, ran)  # the first run is slower, and a kill after the end shows nothing
        else:
            midway += 1
    assert midway


def _call(write: Callable[..., Any], *arguments: Any) -> None:
    tqdm.set_lock(threading.RLock())  # its own lock is shared between processes, and a kill would leave it behind
    write(*arguments)


def _run(process: Any, dest: Path, wait: float | None) -> tuple[dict[str, bytes], float]:
    """The files of `dest` after killing `process` `wait` seconds from its first write, and how long it then ran."""
    process.start()
    while process.is_alive() and not any(dest.parent.iterdir()):
        time.sleep(0.0002)
    started = time.perf_counter()
    process.join(wait)
    seconds = time.perf_counter() - started
    process.kill()
    process.join()
    left = list(dest.parent.iterdir())
    assert left == [dest] or all(path.name.startswith(f".{dest.name}.partial-") for path in left)
    assert left, "killed before it wrote anything"
    files = {file.name: file.read_bytes() for file in dest.iterdir()} if dest.exists() else {}
    for path in left:
        shutil.rmtree(path)
    return files, seconds
