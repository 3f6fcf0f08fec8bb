"""The hashes of ensemble members' KV cache blocks: plain before the first masked position, their own from it on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.request import Request

from model_impl.engine import prefix_reuse
from model_impl.wire import Membership

TEXT = list(range(40))
init_none_hash(sha256)
prefix_reuse.install()


def request(own: Membership | None, *, salt: str | None = None, block: int = 8, ids: Sequence[int] = TEXT) -> Request:
    params = SamplingParams(max_tokens=1, extra_args=own and own.extra_args())
    hasher = get_request_block_hasher(block, sha256)
    return Request("r", list(ids), params, None, cache_salt=salt, block_hasher=hasher)


def hashes(own: Membership | None, **options: Any) -> list[bytes]:
    return list(request(own, **options).block_hashes)


@given(st.integers(0, 39), st.integers(1, 12), st.sampled_from([None, "salt"]))
def test_members_share_exactly_the_blocks_without_a_masked_position(first: int, block: int, salt: str | None) -> None:
    plain = hashes(None, salt=salt, block=block)
    members = [hashes(Membership("e", k, 2, first, first), salt=salt, block=block) for k in range(2)]
    shared = first // block
    for own in members:
        assert own[:shared] == plain[:shared]
        assert len(own) == len(plain) == 40 // block
    masked = [*plain[shared:], *members[0][shared:], *members[1][shared:]]
    assert len(set(masked)) == len(masked)


def test_a_member_finds_its_own_blocks_in_every_ensemble_over_the_same_prompt() -> None:
    first, later = Membership("e", 3, 8, 10, 10), Membership("f", 3, 64, 10, 30)
    assert hashes(first) == hashes(later)


def test_where_the_answer_begins_is_part_of_the_hash() -> None:
    """Both first masked positions lie in the second block."""
    earlier, later = (hashes(Membership("e", 0, 2, first, first)) for first in (9, 10))
    assert earlier[0] == later[0]
    assert not {*earlier[1:]} & {*later[1:]}


def test_members_of_requests_with_other_salts_share_nothing() -> None:
    found = [hashes(Membership("e", 0, 2, 10, 10), salt=salt) for salt in ("a", "b")]
    assert not {*found[0]} & {*found[1]}


def test_no_salt_of_a_client_makes_a_members_hash() -> None:
    own = Membership("e", 0, 2, 0, 0)
    (_, key), *_ = prefix_reuse.extra_keys(request(own), 0, 8, 0)[0] or ()
    assert hashes(own)[0] not in {hashes(None, salt=salt)[0] for salt in ("0", str(key), repr(key))}


def test_the_events_of_stored_blocks_name_the_member() -> None:
    """External caches would take a member's blocks for plain ones."""
    pool = BlockPool(8, True, 8, enable_kv_cache_events=True)
    own = request(Membership("e", 0, 2, 10, 10))
    pool.cache_full_blocks(own, pool.get_new_blocks(5), 0, 5, 8, 0)
    (event,) = pool.take_events()
    assert event.extra_keys == [None, *[((0, 10),)] * 4]
