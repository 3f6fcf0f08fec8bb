"""`make package-test`: `pip install tokenformer-server[cpu]` into an empty environment, and the server that it gives.

Not among the tests of `make test`: pip resolves and fetches all dependencies, 4 GB and some minutes. Where pip's
configured sources hold no CPU build of PyTorch, set PIP_EXTRA_INDEX_URL to PyTorch's own index.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.deploy import packages
from tests.deploy.packages import NAME, NO_COMPILER

KERNELS = "from model_impl.kernels.cpu.library import library; found = library(); print(found and found._name)"
FROM_SDIST = ("--force-reinstall", "--no-deps", "--no-cache-dir", "--no-binary", NAME)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = packages.copy_tree(tmp_path_factory.mktemp("tree"))
    return packages.build(tree, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of an environment into which pip has installed the wheel and everything that it requires."""
    folder = tmp_path_factory.mktemp("environment")
    made = packages.make_environment(folder)
    began = time.monotonic()
    packages.pip_install(made, "--find-links", dist, f"{NAME}[cpu]")
    size = sum(path.stat().st_size for path in folder.rglob("*") if not path.is_symlink())
    print(f"\npip install {NAME}[cpu]: {time.monotonic() - began:.0f} s, {size / 1e9:.1f} GB")
    return made


def test_the_wheel_serves_with_its_kernels(python: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    with packages.served(python, tmp_path / "log") as server:
        print(f"\nready after {time.monotonic() - began:.0f} s")
        assert packages.ask(server)["risk"] > 0.5
        assert all(path.is_relative_to(python.parents[1]) for path in packages.mapped_kernels(server))
        assert packages.mapped_kernels(server)


def test_the_sdist_builds_the_kernels_where_it_is_installed(python: Path, dist: Path) -> None:
    packages.pip_install(python, *FROM_SDIST, "--find-links", dist, NAME)
    assert Path(packages.run(python, "-c", KERNELS)).is_relative_to(python.parents[1])


def test_the_sdist_serves_without_a_compiler(python: Path, dist: Path, tmp_path: Path) -> None:
    packages.pip_install(python, *FROM_SDIST, "--find-links", dist, NAME, **NO_COMPILER)
    assert packages.run(python, "-c", KERNELS) == "None"
    with packages.served(python, tmp_path / "log") as server:
        assert packages.ask(server)["risk"] > 0.5
        assert packages.mapped_kernels(server) == set()
