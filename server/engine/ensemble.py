"""Scores of a finished answer by the parameter-token ensemble."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig
from vllm.engine.protocol import EngineClient
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.utils import random_uuid

from model_impl.wire import Membership
from server.engine.tasks import Room, together
from server.uncertainty.score import EnsembleScore

MIXTURE_BYTES = 64 << 20
"""Largest size of one ensemble's mixture [positions, V] in the engine. Longer answers are scored in parts."""

CONCURRENT = 4
"""Ensembles of an API process in the engine at once. Others wait."""

SHARE = 4
"""Members may take one part in SHARE of a step of the engine, so that the tokens of others do not wait for it."""

SECRET = secrets.token_hex(16)
"""Prefix of the names of ensembles and of the members' cache salts. Without it, a client could join an ensemble or read
its KV cache blocks."""


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
    if config.parallel_config.data_parallel_size > 1:
        return "`uncertainty.ensemble` needs a server without data parallelism: its members must meet in one engine"
    return None


def positions_at_once(config: VllmConfig) -> int:
    """Number of positions whose mixtures the engine may hold for one ensemble."""
    return max(1, MIXTURE_BYTES // (4 * config.model_config.get_vocab_size()))


def ensemble_name() -> str:
    return f"{SECRET}-{random_uuid()}"


def member_request(own: Membership, ids: Sequence[int], cache_salt: str | None) -> tuple[Any, SamplingParams]:
    """Prompt and parameters of the request that runs one member over `ids`."""
    params = SamplingParams(temperature=0, max_tokens=1, detokenize=False, extra_args=own.extra_args())
    return {"prompt_token_ids": ids, "cache_salt": f"{SECRET}/{own.member}/{cache_salt or ''}"}, params


class Ensemble:
    """The ensemble of the engine's model, for one API process."""

    def __init__(self, client: EngineClient, config: VllmConfig) -> None:
        self.client = client
        self.positions = positions_at_once(config)
        self.turns = asyncio.Semaphore(CONCURRENT)
        self.room = Room(config.scheduler_config.max_num_batched_tokens // SHARE)
        self.using: Counter[int] = Counter()
        """Adapter id -> number of answers that wait for their scores. Until it is 0, a delta stays loaded."""
        self.unavailable = unavailable_reason(config)

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
        rows: list[list[float]] = []
        computed = 0
        for first in range(start, len(ids), self.positions):
            # The position before a token has the token's distribution.
            part, tokens = await self._part(
                ids[: min(first + self.positions, len(ids)) - 1], first - 1, scored, members
            )
            rows += part
            computed += tokens
        blank: list[float | None] = [None] * (start - len(scored.prompt) if scored.answer else 0)
        epistemic, aleatoric = ([*blank, *(row[i] for row in rows)] for i in (0, 1))
        return EnsembleScore(members, epistemic, aleatoric, computed)

    async def _part(
        self, ids: list[int], start: int, scored: ScoredAnswer, members: int
    ) -> tuple[list[list[float]], int]:
        """Epistemic and aleatoric uncertainty after the positions of `ids` from `start` on, and the tokens computed."""
        name = ensemble_name()
        async with self.turns:
            try:
                memberships = [Membership(name, member, members, start) for member in range(members)]
                computed = await together(self._member(own, ids, scored) for own in memberships)
                found = await self.client.collective_rpc("take_mixture", args=(name,))
            except BaseException:
                await asyncio.shield(self.client.collective_rpc("drop_mixture", args=(name,)))
                raise
        rows: list[list[float]] = next(rows for rows in found if rows is not None)
        return rows, sum(computed)

    async def _member(self, own: Membership, ids: list[int], scored: ScoredAnswer) -> int:
        """Run one member over `ids`. Returns the number of computed tokens."""
        prompt, params = member_request(own, ids, scored.cache_salt)
        request_id = f"ensemble-{random_uuid()}-{own.member}"  # logged, unlike the name
        results = self.client.generate(
            prompt, params, request_id, lora_request=scored.adapter, priority=scored.priority
        )
        cached = 0
        async with self.room.take(len(ids)):
            async for result in results:
                cached = result.num_cached_tokens or 0
        return len(ids) - cached
