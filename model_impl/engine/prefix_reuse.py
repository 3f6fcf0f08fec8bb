"""KV cache reuse of ensemble members, which ends at the first position whose distribution is wanted.

The rows beyond have to be computed again, since a cached block holds keys and values but no distribution. vLLM only has
a switch for the whole request, so its lookup gets a shorter request.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.kv_cache_manager import KVCacheBlocks, KVCacheManager
from vllm.v1.core.sched import scheduler
from vllm.v1.request import Request

from model_impl.wire import Membership


class PrefixOf:
    """A request as if it ended with `num_tokens` tokens."""

    def __init__(self, request: Request, num_tokens: int) -> None:
        self.request, self.num_tokens = request, num_tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self.request, name)


class BoundedReuse(KVCacheManager):
    def get_computed_blocks(self, request: Request) -> tuple[KVCacheBlocks, int, int]:
        own = Membership.of(request.sampling_params.extra_args) if request.sampling_params else None
        # vLLM looks up one token less than there are.
        seen: Any = request if own is None else PrefixOf(request, own.start + 1)
        return super().get_computed_blocks(seen)


def install() -> None:
    """Make schedulers that this process starts later look up members' blocks that way."""
    scheduler.KVCacheManager = BoundedReuse  # type: ignore[misc]
