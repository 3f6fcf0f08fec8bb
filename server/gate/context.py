"""The record of one request while it is answered, for the access log; it holds no text of clients or models."""

from __future__ import annotations

import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field

from server.uncertainty.summary import Uncertainty


@dataclass
class RequestRecord:
    """Begun by the middleware and completed by the engine, the serving classes and the scores."""

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    model: str | None = None
    """The served name, never the client's spelling; None until the request reaches the engine."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queued_seconds: float | None = None
    first_token_seconds: float | None = None
    """Seconds since `began`; only streams show a first token."""
    finish_reasons: Counter[str] = field(default_factory=Counter)
    uncertainty: dict[int, Uncertainty] = field(default_factory=dict)
    """Choice index -> summary, for each finished choice."""
    nothing_shown: bool = False
    """Whether this is a mere echo, for which vLLM generates one token and hides it."""
    failed: bool = False
    """Whether the answer failed; a stream reports that in an event, because its 200 has already been sent."""

    @property
    def seconds(self) -> float:
        """Time since the request arrived."""
        return time.perf_counter() - self.began


RECORD: ContextVar[RequestRecord | None] = ContextVar("record", default=None)
"""Of the request that the running code belongs to; None outside of requests and in those that are not logged."""
