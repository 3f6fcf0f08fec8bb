"""The context of the running request: its log record, its admission ticket and the cache salt of its API key."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.uncertainty.summary import Uncertainty

if TYPE_CHECKING:
    from server.gate.admission import Ticket


@dataclass
class RequestRecord:
    """The access log's line, without text of clients or models. Begun by the middleware and completed by the engine,
    the serving classes and the scores."""

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


@dataclass(frozen=True)
class RequestContext:
    """Each middleware enters a context with what it adds. A task keeps the context in which it was created."""

    record: RequestRecord | None = None
    """None in requests that are not logged."""
    ticket: Ticket | None = None
    """None in requests that need no admission."""
    cache_salt: str | None = None
    """Keeps the KV cache blocks of the request's API key apart from others'; None where keys share."""


CONTEXT: ContextVar[RequestContext] = ContextVar("request", default=RequestContext())  # noqa: B039  # it is frozen
"""Outside of requests it has nothing."""


@contextmanager
def entered(context: RequestContext) -> Iterator[None]:
    token = CONTEXT.set(context)
    try:
        yield
    finally:
        CONTEXT.reset(token)
