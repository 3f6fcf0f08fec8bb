"""Request ids of clients that are echoed and logged."""

from __future__ import annotations

import re

PATTERN = r"[A-Za-z0-9._:-]{1,128}"


def valid_request_id(text: str) -> bool:
    """Whether headers, log lines and the engine can hold `text` unescaped."""
    return re.fullmatch(PATTERN, text) is not None
