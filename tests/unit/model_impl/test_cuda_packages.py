"""What pip installs beside a CPU build of PyTorch must not end the server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_impl.cuda_packages import CUDA_PACKAGES
from scripts.lock import LEFT_OUT

TRANSFORMERS = "import server, transformers.image_utils"
"""transformers imports torchvision there if it finds one; vLLM imports this in turn."""

INSPECTED = """
import server
from model_impl import plugin
from vllm.model_executor.models import registry
plugin.register()
print(registry._run_in_subprocess(lambda: __import__("transformers.image_utils").__name__))
"""

FOUND = "import server; from importlib.util import find_spec; print(find_spec({name!r}) is not None)"


def install(folder: Path, name: str, version: str) -> None:
    """A package that cannot be imported, as one that was built for another PyTorch."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(f"raise RuntimeError('operator {name}::nms does not exist')\n")
    (folder / f"{name}-{version}.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)


def run(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def cpu_torch(tmp_path: Path) -> Path:
    """A folder whose metadata make the PyTorch of a process a CPU build."""
    return torch_of(tmp_path, "2.13.0+cpu")


def torch_of(tmp_path: Path, version: str) -> Path:
    folder = tmp_path / version / f"torch-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    return folder.parent


def test_transformers_loads_beside_a_torchvision_that_does_not(tmp_path: Path, cpu_torch: Path) -> None:
    install(tmp_path, "torchvision", "0.28.0")
    done = run(TRANSFORMERS, cpu_torch, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nms does not exist" in run(TRANSFORMERS.replace("server, ", ""), cpu_torch, tmp_path).stderr


def test_the_process_in_which_vllm_inspects_a_model_does_not_find_it_either(tmp_path: Path, cpu_torch: Path) -> None:
    install(tmp_path, "torchvision", "0.28.0")
    done = run(INSPECTED, cpu_torch, tmp_path)
    assert done.stdout.endswith("transformers\n"), done.stderr
    assert "nms does not exist" in run(INSPECTED.replace("plugin.register()", ""), cpu_torch, tmp_path).stderr


@pytest.mark.parametrize("name", CUDA_PACKAGES)
def test_a_build_for_cuda_is_not_found_beside_a_cpu_build(name: str, tmp_path: Path, cpu_torch: Path) -> None:
    install(tmp_path, name, "1.0")
    assert run(FOUND.format(name=name), cpu_torch, tmp_path).stdout == "False\n"


def test_a_cpu_build_is_found(tmp_path: Path, cpu_torch: Path) -> None:
    install(tmp_path, "torchvision", "0.28.0+cpu")
    assert run(FOUND.format(name="torchvision"), cpu_torch, tmp_path).stdout == "True\n"


def test_beside_a_build_for_cuda_all_are_found(tmp_path: Path) -> None:
    install(tmp_path, "torchvision", "0.28.0")
    assert run(FOUND.format(name="torchvision"), torch_of(tmp_path, "2.13.0"), tmp_path).stdout == "True\n"


def test_they_are_the_packages_that_the_lock_leaves_out() -> None:
    assert set(CUDA_PACKAGES) == set(LEFT_OUT)
