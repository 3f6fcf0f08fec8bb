"""The Python environment of the rehearsal: the packages of the machine with the GPU that the kit relies on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from scripts.gpu.packages import ROOT, taken

VERSION = "3.12"
"""The version of the machine's Python."""

TORCH = ("torch==2.11.0", "triton==3.6.0")

PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 40)]
PLATFORMS += [f"manylinux{year}_x86_64" for year in ("1", "2010", "2014")]


@dataclass(frozen=True)
class Environment:
    folder: Path
    interpreter: str
    version: str

    @classmethod
    def found(cls, folder: Path) -> Environment:
        """By the machine's version of Python, or else by the one that runs this."""
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        for candidate in (f"python{VERSION}", *map(str, sorted(pyenv.glob(f"{VERSION}.*/bin/python3")))):
            if shutil.which(candidate) and works(candidate):
                return cls(folder, candidate, VERSION)
        return cls(folder, sys.executable, ".".join(map(str, sys.version_info[:2])))

    @property
    def same(self) -> bool:
        return self.version == VERSION

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def install_into(self, site: Path, requirements: list[str]) -> None:
        """Unpack wheels for this version of Python, each of the locked hash."""
        lines = site.with_name("site.txt")
        lines.write_text("\n".join(requirements) + "\n")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--no-compile", "--implementation", "cp", "--python-version", self.version]
        for name in PLATFORMS:
            command += ["--platform", name]
        subprocess.run([*command, "--target", str(site), "--requirement", str(lines)], check=True)

    def make(self) -> None:
        subprocess.run([self.interpreter, "-m", "venv", str(self.folder)], check=True)
        install = [self.python, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        subprocess.run([*install, *TORCH], check=True)
        subprocess.run([*install, "--no-deps", *taken()], check=True)

    def rehearse(self, kit: Path, compiled: bool) -> str:
        """The report of rehearsal.py with the archives of `kit`, unpacked as on the machine."""
        place = self.folder / ("compiled" if compiled else "stand-ins")
        for name in ("site", "operators") if compiled else ("site",):
            with tarfile.open(kit / f"{name}.tar.xz") as archive:
                archive.extractall(place, filter="data")
        variables = {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{place}",
            "LD_LIBRARY_PATH": str(self.absent_gpu()),
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            "XDG_CACHE_HOME": str(place / "cache"),
        }
        command = [self.python, "-m", "scripts.gpu.rehearsal", "compiled" if compiled else "stand-ins"]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
            raise SystemExit("make gpu-kit: the rehearsal failed")
        return done.stdout.partition("REPORT\n")[2]

    def absent_gpu(self) -> Path:
        """A folder with stub libraries of a GPU."""
        folder = self.folder / "absent-gpu"
        folder.mkdir(exist_ok=True)
        source = Path(__file__).with_name("absent_gpu.c")
        for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
            subprocess.run(command, check=True)
        return folder


def works(interpreter: str) -> bool:
    command = [interpreter, "-c", "import ensurepip, venv"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
