"""Builds the kit, a folder that a machine with a GPU needs beside this tree, and rehearses its use: `make gpu-kit`.

    python -m scripts.gpu.kit [--out build/gpu-kit]

The other machine has a GPU, PyTorch for CUDA and some more (present.txt), and no network. Two archives go there:

- `site.tar.xz`: vLLM without its compiled libraries, our package, and the packages that the machine lacks, unpacked;
- `operators.tar.xz`: vLLM's compiled operators and FlashAttention 3, with the code of one architecture only.

They use PyTorch's stable interface, so they load with its 2.11, although vLLM 0.32 wants 2.13. Without the second
archive, or where its code fails, stand-ins take over (plugin/gpu_stand_ins.py). The archives go there one after the
other, as each with the tree must stay below what one transfer takes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from zipfile import ZipFile

from scripts.gpu.environment import Environment
from scripts.gpu.fatbin import keep_only
from scripts.gpu.packages import ROOT, brought, requirement

LIMIT = 64 << 20
"""Bytes of the tree and one archive together."""

ARCHITECTURE = 90
"""Hopper."""

UNUSED_KERNELS = b"float_e4m3"
"""In the names of FlashAttention's kernels for caches of 8 bits."""

OPERATORS = ("vllm/_C_stable_libtorch.abi3.so", "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so")

NEEDED = (".py", ".json", ".jinja", ".js", ".css", ".html", ".typed")
"""Endings of vLLM's files that are read when it runs; the rest is compiled, or source to compile."""

LEFT_OUT = ("vllm/third_party/deep_gemm", "vllm/third_party/fmha_sm100", "vllm/third_party/tml_fa4")
"""Parts of vLLM that are of use only with compiled libraries or another GPU."""

NEVER_READ = ("mistral_common/data", "pycountry/locales")
"""Large data of packages that are imported for other parts of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-kit")
    out: Path = parser.parse_args().out.resolve()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:3.0f} s] {text}", flush=True)

    work = out.with_name(out.name + "-work")
    for folder in (out, work):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    environment = Environment.found(work / "environment")
    say(f"rehearsing on Python {environment.version}" + ("" if environment.same else ", for lack of 3.12"))
    site, operators = work / "site", work / "operators"
    wheel = download(work / "wheels")
    say("taking apart " + wheel.name)
    take_apart(wheel, site, operators)
    say("installing the packages that the machine lacks")
    environment.install_into(site, brought())
    install_ours(site)
    for archive, folder in (("site", site), ("operators", operators)):
        pack(folder, out / f"{archive}.tar.xz")
        say(f"{archive}.tar.xz: {mib((out / f'{archive}.tar.xz').stat().st_size)}")
    check_size(out)
    say("making an environment as on the machine: some GB of packages")
    environment.make()
    for compiled in (True, False):
        say("rehearsing with " + ("compiled operators" if compiled else "stand-ins"))
        rehearsed = environment.rehearse(out, compiled)
        print(rehearsed, end="", flush=True)
    shutil.rmtree(work)
    say(f"ready: {out.relative_to(ROOT) if out.is_relative_to(ROOT) else out}")


def download(folder: Path) -> Path:
    """vLLM's wheel, of the version and hash that the lock names."""
    folder.mkdir()
    lines = folder / "vllm.txt"
    lines.write_text(requirement("vllm") + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--require-hashes", "--dest", str(folder), "--requirement", str(lines)], check=True)
    return next(folder.glob("vllm-*.whl"))


def take_apart(wheel: Path, site: Path, operators: Path) -> None:
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            if ".dist-info/" in name or (name.endswith(NEEDED) and not name.startswith(LEFT_OUT)):
                archive.extract(name, site)
        for name in OPERATORS:
            target = operators / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(keep_only(archive.read(name), ARCHITECTURE, UNUSED_KERNELS))


def install_ours(site: Path) -> None:
    """This project, for its entry points and command, and the platform plugin."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile"]
    plugin = Path(__file__).with_name("plugin")
    subprocess.run([*command, "--target", str(site), str(ROOT), str(plugin)], check=True)


def pack(folder: Path, archive: Path) -> None:
    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if entry.name.startswith(NEVER_READ) or entry.name.endswith((".pyi", ".h")) else entry

    with tarfile.open(archive, "w:xz", preset=6) as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, path.name, filter=kept)


def check_size(out: Path) -> None:
    tree = tree_bytes()
    for archive in sorted(out.iterdir()):
        own = archive.stat().st_size
        print(f"tree {mib(tree)} + {archive.name} {mib(own)} = {mib(tree + own)} of {mib(LIMIT)}", flush=True)
        if tree + own > LIMIT:
            raise SystemExit(f"make gpu-kit: {archive.name} is too large for one transfer with the tree")


def tree_bytes() -> int:
    """The size of the tracked files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return sum((ROOT / name).lstat().st_size for name in listed.split("\0") if name)


def mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


if __name__ == "__main__":
    main()
