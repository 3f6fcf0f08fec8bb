"""KV cache reuse of ensemble members.

A member shares the plain request's blocks up to its first masked position. Blocks with masked positions hold keys and
values that only the same member has, so the member is part of their hash. vLLM has one salt per request, in the hash of
its first block, which would part the prompt's blocks too.

A member reuses nothing from the first position on whose distribution is wanted, since a cached block holds keys and
values but no distribution. vLLM only has a switch for the whole request, so its lookup gets a shorter request.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core import block_pool, kv_cache_utils
from vllm.v1.core.kv_cache_manager import KVCacheBlocks, KVCacheManager
from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys
from vllm.v1.core.sched import scheduler
from vllm.v1.request import Request

from model_impl.wire import MEMBER_ARG, Membership


def membership(request: Request) -> Membership | None:
    return Membership.of(request.sampling_params.extra_args) if request.sampling_params else None


class PrefixOf:
    """A request as if it ended with `num_tokens` tokens."""

    def __init__(self, request: Request, num_tokens: int) -> None:
        self.request, self.num_tokens = request, num_tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self.request, name)


class BoundedReuse(KVCacheManager):
    def get_computed_blocks(self, request: Request) -> tuple[KVCacheBlocks, int, int]:
        own = membership(request)
        # vLLM looks up one token less than there are.
        seen: Any = request if own is None else PrefixOf(request, own.start + 1)
        return super().get_computed_blocks(seen)


def extra_keys(
    request: Request, start_token_idx: int, end_token_idx: int, start_mm_idx: int
) -> tuple[tuple[Any, ...] | None, int]:
    """vLLM's extra keys of the block between two positions, and the member's where one of the block's is masked.

    No other key has this tag, and clients may not set MEMBER_ARG, so nobody else's block has the hash.
    """
    keys, next_item = generate_block_hash_extra_keys(request, start_token_idx, end_token_idx, start_mm_idx)
    own = membership(request)
    if own is not None and end_token_idx > own.masked_from:
        keys = (*(keys or ()), (MEMBER_ARG, (own.member, own.masked_from)))
    return keys, next_item


def install() -> None:
    """Make schedulers that this process starts later look up and name members' blocks that way."""
    scheduler.KVCacheManager = BoundedReuse  # type: ignore[misc]
    kv_cache_utils.generate_block_hash_extra_keys = extra_keys
    block_pool.generate_block_hash_extra_keys = extra_keys  # for the events of stored blocks
