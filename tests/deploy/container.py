"""The Dockerfile built and run by podman, for `make image-test`: no daemon, no registry, a store of its own.

The base image cannot be had from Debian or PyPI; a minimal Debian 12 with its Python 3.11 stands in under its name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tokenformer-image-test"
BASE = "docker.io/library/python:3.11-slim-bookworm"
IMAGE = "localhost/tokenformer-server:cpu"
BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"


def lacking() -> str | None:
    """The reason why images cannot be built and run here."""
    programs = [name for name in ("podman", "debootstrap") if shutil.which(name) is None]
    if programs:
        return f"needs {' and '.join(programs)}; on Debian: apt-get install --no-install-recommends podman debootstrap"
    return None if os.geteuid() == 0 else "needs root, as debootstrap does"


def podman(*arguments: object, given: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman on the store of these tests; raises RuntimeError with the end of its output if it fails."""
    command = ["podman", "--root", CACHE / "store", "--runroot", CACHE / "run", *arguments]
    done = subprocess.run([*map(str, command)], input=given, capture_output=True, text=True, timeout=1800)
    if check and done.returncode != 0:
        raise RuntimeError(
            f"podman {arguments[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )
    return done


def build() -> None:
    """Bring the image up to date with the working tree."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if podman("image", "exists", BASE, check=False).returncode != 0:
        _make_base()
    wheels = _wheels()
    (CACHE / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheelhouse\n")
    volumes = [f"{wheels}:/wheelhouse:ro", f"{CACHE}/pip.conf:/etc/pip.conf:ro"]
    # chroot: a build then needs nothing of the machine's cgroups and limits
    options = ["--isolation", "chroot", "--format", "docker", "--network", "host", "--pull=never"]
    options += [part for volume in volumes for part in ("--volume", volume)]
    podman("build", *options, "--target", "cpu", "--tag", IMAGE, ROOT)


def _make_base() -> None:
    root = CACHE / "base"
    shutil.rmtree(root, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    archive = CACHE / "base.tar"
    subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."], check=True)
    podman("import", archive, BASE)
    shutil.rmtree(root)
    archive.unlink()


def _wheels() -> Path:
    """The locked packages, fetched by this machine's pip with its settings, for a build that asks no index."""
    folder = CACHE / "wheels"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    for lock in ("cpu-torch.txt", "cpu.txt"):
        subprocess.run([*pip, "--requirement", str(ROOT / "requirements" / lock)], check=True)
    return folder


def hardened(name: str, *, volumes: Sequence[str] = ()) -> list[str]:
    """Options of `podman run` that are as strict as those of deploy/compose.yml, and shut off all networks."""
    options = ["--name", name, "--network", "none", "--read-only", "--read-only-tmpfs=false"]
    options += ["--tmpfs", "/tmp", "--shm-size", "1g"]
    options += ["--cap-drop", "all", "--security-opt", "no-new-privileges", "--pull=never"]
    # what the machine may not grant must not be asked for
    options += ["--cgroups=disabled"]
    for limit, name_in_proc in (("nofile", "open files"), ("nproc", "processes")):
        options += ["--ulimit", f"{limit}={_limit(name_in_proc)}"]
    return options + [part for volume in volumes for part in ("--volume", volume)]


def _limit(what: str) -> str:
    """A value below the hard limit of this process, for both limits of a container."""
    line = next(line for line in Path("/proc/self/limits").read_text().splitlines() if line.startswith(f"Max {what}"))
    hard = re.split(r"\s{2,}", line)[2]
    number = 4096 if hard == "unlimited" else min(4096, int(hard))
    return f"{number}:{number}"
