"""Prints the installed packages that a server in an image does not need, one a line, for `pip uninstall`.

The lock serves development too: packages that neither the project nor vLLM requires are for tests and tools.
"""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.lock import LEFT_OUT, Package, Target, reached

BUILD_TOOLS = {"ninja"}
"""Required by xgrammar for the kernels that it compiles where there is a GPU and a compiler."""


def installed() -> dict[str, Package]:
    """By canonical name; hashes play no part. Of two the first on the path counts, as it does for imports: setuptools
    puts copies of its own at the end."""
    packages: dict[str, Package] = {}
    for found in metadata.distributions():
        package = Package(found.name, found.version, "", tuple(map(Requirement, found.requires or ())))
        packages.setdefault(canonicalize_name(found.name), package)
    return packages


def surplus(packages: dict[str, Package], roots: list[Requirement], target: Target) -> list[str]:
    """Canonical names that `roots` do not need; ends the program where one that they do need is missing."""
    needed, missing = reached(roots, packages, target, {*LEFT_OUT, *BUILD_TOOLS})
    if missing:
        raise SystemExit(f"not installed: {', '.join(sorted(missing))}")
    return sorted(packages.keys() - needed)


if __name__ == "__main__":
    here = Target(f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine())
    print(*surplus(installed(), [Requirement("tokenformer-server[cpu]")], here), sep="\n")
