"""What is written down of one request while it is answered: the access log's line, and no text of anybody's."""

from __future__ import annotations

import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field

from server.uncertainty.summary import Uncertainty


@dataclass
class RequestRecord:
    """One request. The middleware begins it; the engine, the serving classes and the scores add what they know."""

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    model: str | None = None
    """By the name it is served under, never as the client wrote it; None until a request reaches the engine."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queued_seconds: float | None = None
    first_token_seconds: float | None = None
    """Since `began`, of a stream; whoever waits for a whole answer sees no first token."""
    finish_reasons: Counter[str] = field(default_factory=Counter)
    uncertainty: dict[int, Uncertainty] = field(default_factory=dict)
    """Of each finished choice."""
    nothing_shown: bool = False
    """A mere echo: vLLM generates one token all the same and keeps it to itself."""
    failed: bool = False
    """Whether something went wrong, which a stream says in an event: its status is 200 long since."""

    @property
    def seconds(self) -> float:
        """Since the request arrived."""
        return time.perf_counter() - self.began


RECORD: ContextVar[RequestRecord | None] = ContextVar("record", default=None)
"""Of the request that the running code belongs to; None outside of requests and in those that are not logged."""
