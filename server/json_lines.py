"""Files with a JSON value on every line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Entry = TypeVar("Entry")


class LinesError(ValueError):
    """A file that cannot be read, or a line of it; the message is one line for the user and names both."""


def read_json_lines(path: Path, parse: Callable[[int, Any], Entry]) -> tuple[list[Entry], str]:
    """What `parse` makes of every line that is not blank, by its number from 1, and the SHA-256 of the file.

    Raises LinesError where the file is no UTF-8, or a line no JSON or refused by `parse` with a ValueError.
    """
    try:
        content = path.read_bytes()
        # Only line feeds: JSON texts may hold the other characters that Python ends lines at.
        lines = content.decode().split("\n")
    except OSError as error:
        raise LinesError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LinesError(f"{path}: not UTF-8") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                entries.append(parse(number, json.loads(line)))
            except ValueError as error:
                raise LinesError(f"{path}, line {number}: {error}") from error
    return entries, hashlib.sha256(content).hexdigest()
