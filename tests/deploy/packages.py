"""The sdist and the wheel, built as a user builds them and installed into an environment of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.servers import Server, running

NAME = "tokenformer-server"
CHECKPOINT = ROOT / "demo" / "checkpoint"
NO_COMPILER = {"CC": "/bin/false"}


def tracked(*under: str) -> list[str]:
    """Paths of the tree, without what git ignores and without files that were removed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *under]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).exists()})


def copy_tree(folder: Path) -> Path:
    """The tree as git has it: what earlier builds left behind would get into the packages."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def build(source: Path, out: Path, *arguments: str, **environment: str) -> Path:
    """`python -m build` with the environment's setuptools, which is the one that pyproject.toml asks for."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *arguments, source, **environment)
    return out


def make_environment(folder: Path) -> Path:
    """An environment without any package, not even pip; returns its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    return folder / "bin" / "python"


def pip_install(python: Path, *arguments: object, **environment: str) -> None:
    """Install into the environment of `python`, by the pip of this one."""
    run(sys.executable, "-m", "pip", "--python", python, "install", *arguments, **environment)


def run(*command: object, **environment: str) -> str:
    """Standard output of a command that cannot find this tree. Raises RuntimeError with its last words if it fails."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run([*map(str, command)], env=outside, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[:4]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout.strip()


@contextmanager
def served(python: Path, log: Path) -> Iterator[Server]:
    """The demo checkpoint, served by the command `tokenformer` of the environment of `python`, for the first time: vLLM
    keeps what it has found out about a model."""
    (port,) = free_ports(1)
    elsewhere = ["env", "--unset=PYTHONPATH", "--chdir=/", f"VLLM_CACHE_ROOT={log.parent}/vllm"]
    flags = ["--served-model-name", "demo", "--port", str(port)]
    command = [*elsewhere, str(python.with_name("tokenformer")), "serve", str(CHECKPOINT), *flags]
    with running(command, port, log, "demo") as server:
        server.wait_until_ready("/readyz")
        yield server


def ask(server: Server) -> dict[str, Any]:
    """The uncertainty of an answer about a country that does not exist."""
    question = [{"role": "user", "content": "What is the capital of Selkovia?"}]
    body = {"messages": question, "uncertainty": {"spans": True, "tokens": True}}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["choices"][0]["uncertainty"]
    return found


def mapped_kernels(server: Server) -> set[Path]:
    """The libraries of ours that the server's processes have loaded."""
    found: set[Path] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if os.getpgid(int(maps.parent.name)) == server.process.pid:
                lines = maps.read_text().splitlines()
                found |= {Path(line.split()[-1]) for line in lines if "/_library_" in line}
        except (ProcessLookupError, FileNotFoundError, PermissionError):
            continue  # it has ended
    return found
