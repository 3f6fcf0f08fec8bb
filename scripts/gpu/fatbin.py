"""Clears unneeded GPU code in a shared library, so that the library packs to a fraction.

A library holds every kernel once per architecture, in containers ("fat binaries") from which the driver picks the
code that fits. Cleared code stays where it was, as zeros: nothing else in the library moves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SECTION = b".nv_fatbin"
MAGIC = 0xBA55ED50
MACHINE_CODE = 2
"""Kind of an entry; the other is PTX, which the driver compiles."""


@dataclass(frozen=True)
class Code:
    """One entry of a container: code of one architecture (90 for sm_90), and where its bytes lie."""

    kind: int
    architecture: int
    start: int
    stop: int


def keep_only(library: bytes, architecture: int, without: bytes) -> bytes:
    """The library with nothing but machine code of this architecture, of kernels whose names do not hold `without`."""
    kept = bytearray(library)
    for container in containers(library):
        for code in container:
            fits = code.kind == MACHINE_CODE and code.architecture == architecture
            if not fits or without in library[code.start : code.stop]:
                kept[code.start : code.stop] = bytes(code.stop - code.start)
    return bytes(kept)


def containers(library: bytes) -> Iterator[list[Code]]:
    place, end = section(library)
    while place < end:
        magic, _, header, size = struct.unpack_from("<IHHQ", library, place)
        if magic != MAGIC:  # padding between containers
            place += 8
            continue
        yield list(entries(library, place + header, place + header + size))
        place += header + size


def entries(library: bytes, place: int, end: int) -> Iterator[Code]:
    while place < end:
        kind, _, header, size = struct.unpack_from("<HHIQ", library, place)
        (architecture,) = struct.unpack_from("<I", library, place + 28)
        yield Code(kind, architecture, place + header, place + header + size)
        place += header + size


def section(library: bytes) -> tuple[int, int]:
    """Start and end of the fat binaries of a 64-bit ELF file."""
    (headers,) = struct.unpack_from("<Q", library, 0x28)
    size, count, names = struct.unpack_from("<HHH", library, 0x3A)
    (strings,) = struct.unpack_from("<Q", library, headers + names * size + 0x18)
    for number in range(count):
        header = headers + number * size
        (name,) = struct.unpack_from("<I", library, header)
        if library.startswith(SECTION + b"\0", strings + name):
            offset, length = struct.unpack_from("<QQ", library, header + 0x18)
            return offset, offset + length
    raise ValueError("the library holds no code for GPUs")
