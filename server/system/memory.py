"""Memory that this process may still use: the machine's, or the container's where that is less."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
"""Inside a container this is the container's own group (cgroups v2)."""


def available_bytes(group: Path = CGROUPS) -> int:
    """Available bytes, including the page cache, which is given back on demand."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines()).get("file", "0")
    except OSError:  # no container, or one of the older kind
        return free
    return free if limit == "max" else min(free, max(int(limit) - int(used) + int(cache), 0))
