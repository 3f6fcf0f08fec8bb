"""Request ids of clients that are echoed and logged."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

PATTERN = r"[A-Za-z0-9._:-]{1,128}"
RequestId = Annotated[str, Field(pattern=f"^{PATTERN}$", description="Becomes a part of the answer's id.")]


def valid_request_id(text: str) -> bool:
    """Whether headers, log lines and the engine can hold `text` unescaped."""
    return re.fullmatch(PATTERN, text) is not None
