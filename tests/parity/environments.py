"""Environments of the tools: each has its own packages, in front of those of the server's environment.

So PyTorch and Transformers are installed once, and no tool can change a version that the server is locked to.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"


def environment(tool: str) -> Path:
    """The directory with the tool's programs; installed at the first call, and anew when its versions change."""
    home = ROOT / ".venv-parity" / tool
    versions = (REQUIREMENTS / f"{tool}.txt").read_text()
    stamp = home / "versions.txt"
    if not stamp.is_file() or stamp.read_text() != versions:
        print(f"{tool}: installing", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        python = home / "bin" / "python"
        find = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = subprocess.run([python, "-c", find], check=True, capture_output=True, text=True).stdout.strip()
        (Path(packages) / "server.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", REQUIREMENTS / f"{tool}.txt"]
        subprocess.run(install, check=True)
        stamp.write_text(versions)
    return home / "bin"


def version(tool: str) -> str:
    """`guidellm 0.8.1`, as the requirements pin it."""
    name = tool.replace("-", "_")
    pinned = (REQUIREMENTS / f"{tool}.txt").read_text().splitlines()
    return next(line.replace("==", " ") for line in pinned if line.replace("-", "_").startswith(f"{name}=="))
