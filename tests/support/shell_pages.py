"""Pages of docs/ whose shell blocks a test runs, in order, in one shell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.servers import user_environment

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXCERPT = re.compile(r"^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = "== block {} =="
SECONDS = 1200


class PageError(Exception):
    """A block failed."""


def blocks(page: str) -> list[tuple[str, list[str]]]:
    """Each shell block of a page, with the excerpts of its output that follow before the next one."""
    parts = BLOCK.split(page)[1:]
    return [(block, EXCERPT.findall(after)) for block, after in zip(parts[::2], parts[1::2], strict=True)]


def masked(text: str) -> list[str]:
    """The lines of an excerpt or an output, without what differs from run to run: numbers, hashes and warnings."""
    lines = (re.sub(r"-?\b[0-9a-f]{8,}\b|[+-]?\d[\d.,]*(e-\d+)?", "#", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("warning:")]


def unsaid(page: str, outputs: Sequence[str]) -> list[str]:
    """The lines of the page's excerpts that the block before them did not print."""
    pairs = zip(blocks(page), outputs, strict=True)
    return [
        line
        for (_, excerpts), output in pairs
        for excerpt in excerpts
        for line in masked(excerpt)
        if line != "..." and line not in masked(output)
    ]


def run_page(page: str, directory: Path, changes: Mapping[str, str], left_out: Container[int] = ()) -> list[str]:
    """Run the blocks in one shell in `directory`, which ends at the first failure; returns the output of each.

    `changes` replaces texts of the page, such as its port, each of which must be there. The blocks numbered in
    `left_out` are not run. Raises PageError.
    """
    for text, other in changes.items():
        assert text in page, text
        page = page.replace(text, other)
    marked = [f"echo '{MARK.format(i)}'\n{'' if i in left_out else block}" for i, (block, _) in enumerate(blocks(page))]
    script = "\n".join(["set -eu", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT", *marked, "echo '== end =='"])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = user_environment() | {"PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)  # of the tests; a page says what it needs
    log = directory / "page.log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = shell.wait(SECONDS)
        except BaseException:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait(60)
            raise
    said = log.read_text(errors="replace")
    if code != 0:
        raise PageError(f"exit code {code}:\n{said[-4000:]}")
    return re.split(r"^== (?:block \d+|end) ==\n", said, flags=re.MULTILINE)[1:-1]
