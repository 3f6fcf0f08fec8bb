"""Files with a JSON object on every line. The module imports nothing heavy, so that faults are reported at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes that of `typing` from Python 3.12 only

from model_impl.faults import first_fault, shown
from model_impl.one_line_error import OneLineError

Entry = TypeVar("Entry")

STRICT = ConfigDict(extra="forbid", strict=True)
"""Configuration of the lines' models: no unknown fields, and no conversion of types."""


class LinesError(OneLineError):
    """An unreadable file or line; the message is one line for the user and names both."""


def line_error(path: Path, line: int, message: str) -> LinesError:
    """The error for a line, with its number from 1."""
    return LinesError(f"{path}, line {line}: {message}")


def encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair at character {error.start}, which is no text") from error
    return text


NonEmpty = Annotated[str, Field(min_length=1), AfterValidator(encodable)]


@with_config(STRICT)
class Message(TypedDict):
    """A chat message for chat templates."""

    role: NonEmpty
    content: Annotated[str, AfterValidator(encodable)]


def read_json_lines(path: Path, parse: Callable[[int, Any], Entry]) -> tuple[list[Entry], str]:
    """The results of `parse(number, object)` for every line that is not blank, and the SHA-256 of the file.

    A byte-order mark, as spreadsheets write it, is skipped. Raises LinesError for a file that is not UTF-8, and for a
    line that is no JSON object or that `parse` refuses with a ValueError, such as pydantic's.
    """
    try:
        content = path.read_bytes()
        # Not splitlines(): JSON texts may hold the other line ends that Python knows.
        lines = content.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise LinesError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise line_error(path, error.object.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                entries.append(parse(number, parse_object(line)))
            except ValidationError as error:
                raise line_error(path, number, first_fault(error)) from error
            except ValueError as error:
                raise line_error(path, number, str(error)) from error
    return entries, hashlib.sha256(content).hexdigest()


def parse_object(line: str) -> dict[str, Any]:
    """Raises ValueError, with a message for the user."""
    try:
        # No field is a number: the models refuse them, however long they are.
        value = json.loads(line, object_pairs_hook=without_duplicates, parse_int=float)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("not read: nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{shown(name)}: is there more than once")
    return found
