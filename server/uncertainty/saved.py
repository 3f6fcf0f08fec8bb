"""JSON files beside the weights that a command of ours wrote: an object with its `format`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError

from model_impl.checkpoint.reading import CheckpointError, read_json
from model_impl.faults import first_fault
from model_impl.one_line_error import OneLineError

Saved = TypeVar("Saved")

EXACT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Configuration of the files' types. Under `strict`, pydantic would accept no dictionary for a dataclass."""

Number = Annotated[float, Strict()]


def load_saved(path: Path, schema: TypeAdapter[Saved], form: str, command: str, refusal: type[OneLineError]) -> Saved:
    """The content of a file of the format `form`, a name with a version. Raises `refusal`, naming the file.

    `command` makes such files, and is named where another version did.
    """
    try:
        content = read_json(path)
    except CheckpointError as error:
        raise refusal(str(error)) from error
    found = content.pop("format", None)
    if found != form:
        name = form.rstrip("0123456789")
        if str(found).startswith(name):
            raise refusal(f"{path}: {found}, which another version made; make it anew by `tokenformer {command}`")
        raise refusal(f"{path}: not a {name.split('-')[1]} ({form})")
    try:
        return schema.validate_python(content)
    except ValidationError as error:
        raise refusal(f"{path}: {first_fault(error)}") from error
