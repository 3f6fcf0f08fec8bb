"""Scores of a finished answer by the parameter-token ensemble."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.utils import random_uuid
from vllm.v1.engine.async_llm import AsyncLLM

from model_impl.wire import Membership
from server.engine.tasks import Room, together
from server.uncertainty.score import EnsembleScore

MIXTURE_BYTES = 64 << 20
"""Largest size of one ensemble's mixture [positions, V] in the engine. Longer answers are scored in parts."""

CONCURRENT = 4
"""Ensembles of an API process in the engine at once. Others wait."""

SHARE = 16
"""Members in the engine have together at most one part in SHARE of a step's tokens to compute: enough for a full step,
and few enough for this process to send without a pause in others' streams. Where other requests run, the engine lets
fewer into a step (`model_impl.engine.member_share`)."""

SECRET = secrets.token_hex(16)
"""Prefix of the names of ensembles. Without it, a client could join an ensemble or read its KV cache blocks."""


def is_own(membership: object) -> bool:
    """Whether this process wrote the value of MEMBER_ARG in a request's `extra_args`."""
    return isinstance(membership, dict) and str(membership.get("ensemble")).startswith(SECRET)


@dataclass(frozen=True)
class ScoredAnswer:
    """Token ids of a prompt and its answer, and the settings of their request."""

    prompt: Sequence[int]
    answer: Sequence[int]
    adapter: LoRARequest | None = None
    cache_salt: str | None = None
    priority: int = 0


def unavailable_reason(config: VllmConfig) -> str | None:
    """Why an engine with these settings has no ensemble; None if it has one."""
    compilation = config.compilation_config
    if compilation.mode != CompilationMode.NONE or compilation.cudagraph_mode not in (None, CUDAGraphMode.NONE):
        return (
            "`uncertainty.ensemble` needs a server started with --enforce-eager: a compiled model's tokens are settled"
        )
    if not config.cache_config.enable_prefix_caching:
        return "`uncertainty.ensemble` needs a server with prefix caching: its members share the prompt's blocks"
    return None


def positions_at_once(config: VllmConfig) -> int:
    """Number of positions whose mixtures the engine may hold for one ensemble."""
    return max(1, MIXTURE_BYTES // (4 * config.model_config.get_vocab_size()))


def ensemble_name() -> str:
    return f"{SECRET}-{random_uuid()}"


def member_request(own: Membership, ids: Sequence[int], cache_salt: str | None) -> tuple[Any, SamplingParams]:
    """Prompt and parameters of the request that runs one member over `ids`."""
    params = SamplingParams(temperature=0, max_tokens=1, detokenize=False, extra_args=own.extra_args())
    salt = {} if cache_salt is None else {"cache_salt": cache_salt}
    return {"prompt_token_ids": ids, **salt}, params


class Ensemble:
    """The ensemble of the engine's model, for one API process."""

    def __init__(self, client: AsyncLLM, config: VllmConfig, unavailable: str | None = None) -> None:
        """`unavailable`: why the model has none."""
        self.client = client
        self.ranks = itertools.cycle(range(len(client.engine_core.core_engines)))
        """Engines of data parallelism, which take turns. All members of an ensemble run in one."""
        self.positions = positions_at_once(config)
        self.block = config.cache_config.block_size
        self.turns = asyncio.Semaphore(CONCURRENT)
        self.room = Room(config.scheduler_config.max_num_batched_tokens // SHARE)
        self.using: Counter[int] = Counter()
        """Adapter id -> number of answers that wait for their scores. Until it is 0, a delta stays loaded."""
        self.unavailable = unavailable or unavailable_reason(config)

    async def score(self, scored: ScoredAnswer, members: int) -> EnsembleScore:
        """Score an answer by `members` members, which run as ordinary requests."""
        adapter_id = scored.adapter.lora_int_id if scored.adapter else 0
        self.using[adapter_id] += 1
        try:
            return await self._score(scored, members)
        finally:
            self.using[adapter_id] -= 1

    async def _score(self, scored: ScoredAnswer, members: int) -> EnsembleScore:
        ids = [*scored.prompt, *scored.answer]
        start = max(len(scored.prompt), 1)
        rank = next(self.ranks)
        rows: list[list[float]] = []
        computed = 0
        for first in range(start, len(ids), self.positions):
            # The position before a token has the token's distribution.
            name, stop = ensemble_name(), min(first + self.positions, len(ids)) - 1
            memberships = [Membership(name, member, members, start - 1, first - 1) for member in range(members)]
            part, tokens = await self._part(ids[:stop], memberships, scored, rank)
            rows += part
            computed += tokens
        blank: list[float | None] = [None] * (start - len(scored.prompt) if scored.answer else 0)
        epistemic, aleatoric = ([*blank, *(row[i] for row in rows)] for i in (0, 1))
        return EnsembleScore(members, epistemic, aleatoric, computed)

    async def _part(
        self, ids: list[int], memberships: Sequence[Membership], scored: ScoredAnswer, rank: int
    ) -> tuple[list[list[float]], int]:
        """Epistemic and aleatoric uncertainty after the positions of `ids` that the memberships name, and the number of
        computed tokens."""
        name = memberships[0].ensemble
        async with self.turns:
            try:
                computed = await together(self._member(own, ids, scored, rank) for own in memberships)
                found = await self._in_all_engines("take_mixture", name)
            except BaseException:
                await asyncio.shield(self._in_all_engines("drop_mixture", name))
                raise
        rows: list[list[float]] = next(rows for rows in found if rows is not None)
        return rows, sum(computed)

    async def _in_all_engines(self, method: str, name: str) -> list[Any]:
        """The results of all workers. vLLM's `collective_rpc` gives those of the first engine alone."""
        call = self.client.engine_core.call_utility_all_async
        return list(itertools.chain(*await call("collective_rpc", method, None, (name,), None)))

    async def _member(self, own: Membership, ids: list[int], scored: ScoredAnswer, rank: int) -> int:
        """Run one member over `ids`. Returns the number of computed tokens."""
        prompt, params = member_request(own, ids, scored.cache_salt)
        request_id = f"ensemble-{random_uuid()}-{own.member}"  # logged, unlike the name
        results = self.client.generate(
            prompt,
            params,
            request_id,
            lora_request=scored.adapter,
            priority=scored.priority,
            data_parallel_rank=rank,
        )
        cached = 0
        async with self.room.take(len(ids) - own.start // self.block * self.block):
            async for result in results:
                cached = result.num_cached_tokens or 0
        return len(ids) - cached
