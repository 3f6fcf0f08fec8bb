"""Which request ids of a client are echoed and logged."""

from __future__ import annotations

import re

PATTERN = r"[A-Za-z0-9._:-]{1,128}"


def valid_request_id(text: str) -> bool:
    """Whether `text` can stand in a header, a log line and an engine's request id without being escaped anywhere."""
    return re.fullmatch(PATTERN, text) is not None
