"""The sdist and the wheel hold what a server needs and nothing of the machine that built them, and the wheel serves."""

from __future__ import annotations

import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from platform import machine

import httpx
import pytest
from packaging.metadata import Metadata

from model_impl.kernels.cpu.library import LEVELS
from tests.deploy import packages
from tests.deploy.packages import NAME, NO_COMPILER
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEM = f"tokenformer_server-{PROJECT['version']}"
PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")
WHEEL = f"{STEM}-cp311-abi3-{PLATFORM}.whl"
SOURCES = (".c", ".h")
KERNELS = {
    f"model_impl/kernels/cpu/_library_{level}.abi3.so" for level in (LEVELS if machine() == "x86_64" else LEVELS[:1])
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def dist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it: a local index for pip."""
    return packages.build(tree, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel; the other packages are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    python = packages.make_environment(folder)
    packages.pip_install(python, "--no-deps", "--no-index", "--find-links", dist, NAME)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # searched last, its own .pth files never
    return python


def files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def package_files() -> set[str]:
    return set(packages.tracked("model_impl", "server"))


def test_an_sdist_and_a_wheel_are_built(dist: Path) -> None:
    assert {path.name for path in dist.iterdir()} == {f"{STEM}.tar.gz", WHEEL}


def test_the_sdist_holds_both_packages_with_the_sources_of_the_kernels_and_nothing_of_the_demo(dist: Path) -> None:
    with tarfile.open(dist / f"{STEM}.tar.gz") as archive:
        found = {member.name.removeprefix(f"{STEM}/") for member in archive if member.isfile()}
    made = {name for name in found if name.startswith("tokenformer_server.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert found - made == package_files() | {"pyproject.toml", "setup.py", "README.md", "LICENSE"}
    assert (dist / f"{STEM}.tar.gz").stat().st_size < 1e6


def test_the_wheel_holds_the_kernels_of_every_level_instead_of_their_sources(dist: Path) -> None:
    found = {name for name in files(dist / WHEEL) if not name.startswith(f"{STEM}.dist-info/")}
    assert found == {name for name in package_files() if not name.endswith(SOURCES)} | KERNELS


def test_the_wheel_names_no_place_of_the_machine_that_built_it(dist: Path, tree: Path) -> None:
    places = [place.encode() for place in (sys.prefix, sys.base_prefix, str(tree.parent), str(ROOT))]
    assert [name for name, content in files(dist / WHEEL).items() if any(place in content for place in places)] == []


def test_the_metadata_are_valid_and_those_of_the_project(dist: Path) -> None:
    metadata = Metadata.from_email(files(dist / WHEEL)[f"{STEM}.dist-info/METADATA"], validate=True)
    assert (metadata.name, str(metadata.version)) == (NAME, PROJECT["version"])
    assert (metadata.license_expression, metadata.license_files) == ("Apache-2.0", ["LICENSE"])
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text()
    assert set(metadata.provides_extra or ()) == set(PROJECT["optional-dependencies"])


def test_without_a_compiler_the_wheel_has_no_kernels_and_all_else(tree: Path, dist: Path, tmp_path: Path) -> None:
    packages.build(tree, tmp_path, "--wheel", **NO_COMPILER)
    assert files(tmp_path / WHEEL).keys() == files(dist / WHEEL).keys() - KERNELS


def test_a_compiler_that_lacks_a_level_leaves_out_that_level_alone(tree: Path, dist: Path, tmp_path: Path) -> None:
    old = tmp_path / "old-cc"
    old.write_text('#!/bin/sh\ncase "$*" in *-mavx512bf16*) exit 1;; esac\nexec cc "$@" -O0\n')
    old.chmod(0o755)
    packages.build(tree, tmp_path, "--wheel", CC=str(old))
    lacking = {name for name in KERNELS if "bf16" in name}
    assert files(tmp_path / WHEEL).keys() == files(dist / WHEEL).keys() - lacking


def test_the_installed_command_tells_the_projects_version(installed: Path) -> None:
    assert packages.run(installed.with_name("tokenformer"), "--version") == f"{NAME} {PROJECT['version']}"


@pytest.mark.server
def test_the_installed_server_answers_with_its_own_code_and_kernels(installed: Path, tmp_path: Path) -> None:
    environment = installed.parents[1]
    for package in ("server", "model_impl"):
        place = packages.run(installed, "-c", f"import {package}; print({package}.__file__)")
        assert Path(place).is_relative_to(environment)
    with packages.served(installed, tmp_path / "log") as server:
        uncertainty = packages.ask(server)
        kernels = packages.mapped_kernels(server)
        for page in ("/", "/playground", "/docs"):
            assert httpx.get(f"{server.url}{page}", follow_redirects=True).status_code == 200, page
    assert uncertainty["risk"] > 0.5
    assert [span["kind"] for span in uncertainty["spans"]] == ["doubted"]
    assert kernels
    assert all(path.is_relative_to(environment) for path in kernels)
