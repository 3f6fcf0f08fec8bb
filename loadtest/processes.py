"""CPU time and memory of a server's processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil


class ServerProcesses:
    """The API process, and the engine's, which it has started."""

    def __init__(self, pid: int) -> None:
        self.api = psutil.Process(pid)

    @classmethod
    def listening(cls, url: str) -> ServerProcesses | None:
        """The processes of the server at `url`, if it runs on this machine and belongs to this user."""
        address = urlsplit(url)
        if address.hostname not in ("127.0.0.1", "localhost"):
            return None
        found = (
            entry.pid
            for entry in psutil.net_connections("tcp")
            if entry.status == psutil.CONN_LISTEN and entry.laddr.port == address.port and entry.pid
        )
        pid = next(found, None)
        return None if pid is None else cls(pid)

    def forget_peaks(self) -> None:
        """Reset `peak_mib`."""
        self._sum(lambda process: Path(f"/proc/{process.pid}/clear_refs").write_text("5") or 0)

    def peak_mib(self) -> dict[str, float]:
        """The peak resident memory according to the kernel, so that no sampling disturbs the measurement.

        The engine's processes are summed, each at its own peak. The fork server (`server.process.head_start`), which
        waits for the engine's end, and the engine both count their shared memory.
        """
        return {role: round(kib / 1024, 1) for role, kib in self._sum(_peak_kib).items()}

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time so far."""
        return self._sum(lambda process: sum(process.cpu_times()[:2]))

    def _sum(self, value: Callable[[psutil.Process], float]) -> dict[str, float]:
        sums = {"api": 0.0, "engine": 0.0}
        for process in (self.api, *self.api.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                sums["api" if process == self.api else "engine"] += value(process)
        return sums


def _peak_kib(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
