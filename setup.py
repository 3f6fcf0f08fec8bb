"""The kernels for CPUs, compiled once per level of the processor; everything else is in pyproject.toml.

They hold no Python and are loaded by ctypes: model_impl/kernels/cpu/library.py chooses the level. A level that the
compiler does not know is left out; without any, PyTorch does their work.
"""

from pathlib import Path
from platform import machine

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
# -g0: debugging information would hold the paths of the machine that built it, and two thirds of the size.
FLAGS = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"]
LEVELS = {"default": []}
if machine() == "x86_64":
    LEVELS["avx2"] = ["-march=x86-64-v3"]
    LEVELS["avx512"] = ["-march=x86-64-v4"]
    LEVELS["avx512_bf16"] = [*LEVELS["avx512"], "-mavx512bf16"]


def files(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


class BuildKernels(build_ext):
    """Leaves out the search path of the building Python's own libraries: the kernels need none of them."""

    def build_extensions(self) -> None:
        command = [part for part in self.compiler.linker_so if not part.startswith("-Wl,-rpath")]
        self.compiler.set_executables(linker_so=command)
        super().build_extensions()


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            f"model_impl.kernels.cpu._library_{level}",
            files("model_impl/kernels/cpu/csrc/*.c"),
            depends=files("model_impl/kernels/cpu/csrc/*.h"),
            extra_compile_args=[*FLAGS, *own],
            extra_link_args=["-fopenmp"],
            py_limited_api=True,
            optional=True,
        )
        for level, own in LEVELS.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
