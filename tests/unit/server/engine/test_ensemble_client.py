"""The API's requests for an ensemble, to an engine that records them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.config import CompilationMode, CUDAGraphMode

from model_impl.wire import MEMBER_ARG
from server.engine.ensemble import MIXTURE_BYTES, Ensemble, ScoredAnswer, is_own

BLOCK = 4


def settings(vocabulary: int, *, compiled: bool = False, prefix_caching: bool = True) -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(get_vocab_size=lambda: vocabulary),
        compilation_config=SimpleNamespace(
            mode=CompilationMode.VLLM_COMPILE if compiled else CompilationMode.NONE, cudagraph_mode=CUDAGraphMode.NONE
        ),
        cache_config=SimpleNamespace(block_size=BLOCK, enable_prefix_caching=prefix_caching),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=2048),
    )


class Engine:
    """Says of position p, for the token after it, that epistemic is p and aleatoric -p."""

    def __init__(self, fail_at: int | None = None, engines: int = 1) -> None:
        self.requests: list[tuple[list[int], dict[str, Any], str | None]] = []
        self.open: dict[str, tuple[int, int]] = {}
        self.ranks: dict[str, int] = {}
        self.running = 0
        self.fail_at = fail_at
        self.core_engines = range(engines)
        self.engine_core = self

    async def generate(
        self, prompt: Any, params: Any, request_id: str, *, data_parallel_rank: int, **_: Any
    ) -> AsyncIterator[Any]:
        own = params.extra_args[MEMBER_ARG]
        self.requests.append((prompt["prompt_token_ids"], own, prompt.get("cache_salt")))
        self.open[own["ensemble"]] = (own["start"], len(prompt["prompt_token_ids"]))
        assert self.ranks.setdefault(own["ensemble"], data_parallel_rank) == data_parallel_rank
        self.running += 1
        try:
            await asyncio.sleep(0.01 * (own["member"] + 1))
            if own["member"] == self.fail_at:
                raise ConnectionError("the engine is gone")
            yield SimpleNamespace(num_cached_tokens=2)
        finally:
            self.running -= 1

    async def call_utility_all_async(self, call: str, method: str, _: None, args: tuple[str], __: None) -> Any:
        assert call == "collective_rpc"
        positions, rank = self.open.pop(args[0], None), self.ranks.get(args[0])
        rows = None if method == "drop_mixture" or not positions else [[float(p), float(-p)] for p in range(*positions)]
        return [[None, rows if engine == rank else None] for engine in self.core_engines]  # workers without logits


def score(
    engine: Engine, prompt: int, answer: int, *, vocabulary: int = 100, members: int = 3, salt: str | None = None
) -> Any:
    ensemble = Ensemble(engine, settings(vocabulary))  # type: ignore[arg-type]
    scored = ScoredAnswer(range(prompt), range(prompt, prompt + answer), cache_salt=salt)
    return asyncio.run(ensemble.score(scored, members))


def test_each_token_gets_what_the_position_before_it_says() -> None:
    engine = Engine()
    found = score(engine, 5, 4)
    assert found.epistemic == [4, 5, 6, 7]
    assert found.aleatoric == [-4, -5, -6, -7]
    assert found.computed == 3 * (8 - 2)
    assert [ids for ids, _, _ in engine.requests] == [list(range(8))] * 3
    assert [own["masked_from"] for _, own, _ in engine.requests] == [4] * 3
    assert not engine.open


def test_a_long_answer_is_scored_in_parts_that_fit_the_buffer() -> None:
    engine = Engine()
    vocabulary = MIXTURE_BYTES // 4 // 10  # ten positions
    found = score(engine, 3, 25, vocabulary=vocabulary, members=2)
    assert found.epistemic == list(range(2, 27))
    parts = sorted({(own["masked_from"], own["start"], len(ids)) for ids, own, _ in engine.requests})
    assert parts == [(2, 2, 12), (2, 12, 22), (2, 22, 27)]
    assert all(stop - start <= 10 for _, start, stop in parts)


def test_the_first_token_has_nothing_before_it() -> None:
    assert score(Engine(), 0, 3).epistemic == [None, 0, 1]
    assert score(Engine(), 0, 1).epistemic == [None]
    assert score(Engine(), 4, 0).epistemic == []


def test_a_failure_ends_the_other_members_and_frees_the_buffer() -> None:
    engine = Engine(fail_at=0)
    with pytest.raises(ConnectionError, match="gone"):
        score(engine, 5, 4)
    assert (engine.running, engine.open) == (0, {})


def test_a_client_that_leaves_does_too() -> None:
    engine = Engine()

    async def leave() -> None:
        ensemble = Ensemble(engine, settings(100))  # type: ignore[arg-type]
        scoring = asyncio.create_task(ensemble.score(ScoredAnswer(range(5), range(5, 9)), 3))
        while engine.running < 3:
            await asyncio.sleep(0)
        scoring.cancel()
        await scoring

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave())
    assert (engine.running, engine.open) == (0, {})


@pytest.mark.parametrize("salt", [None, "a"])
def test_members_have_the_salt_of_their_request(salt: str | None) -> None:
    """So they find its blocks of the prompt, and no blocks of clients that share none with it."""
    engine = Engine()
    score(engine, 5, 4, salt=salt)
    assert [own for _, _, own in engine.requests] == [salt] * 3


def test_members_of_an_ensemble_meet_in_one_engine_and_ensembles_take_turns() -> None:
    engine = Engine(engines=2)

    async def several() -> list[Any]:
        ensemble = Ensemble(engine, settings(MIXTURE_BYTES // 4 // 2))  # type: ignore[arg-type]
        texts = [ScoredAnswer(range(5), range(5, 9))] * 4
        return await asyncio.gather(*(ensemble.score(text, 3) for text in texts))

    assert [found.epistemic for found in asyncio.run(several())] == [[4, 5, 6, 7]] * 4
    assert sorted(engine.ranks.values()) == [0] * 4 + [1] * 4  # two parts each
    assert not engine.open


def test_only_names_of_this_process_are_its_own() -> None:
    engine = Engine()
    score(engine, 5, 4)
    assert all(is_own(own) for _, own, _ in engine.requests)
    assert not any(map(is_own, ["text", None, {}, {"ensemble": "guessed"}, {"ensemble": None}]))


def test_an_engine_says_why_it_has_none() -> None:
    assert "--enforce-eager" in (Ensemble(Engine(), settings(100, compiled=True)).unavailable or "")  # type: ignore[arg-type]
    assert "prefix caching" in (Ensemble(Engine(), settings(100, prefix_caching=False)).unavailable or "")  # type: ignore[arg-type]
    assert Ensemble(Engine(), settings(100)).unavailable is None  # type: ignore[arg-type]
