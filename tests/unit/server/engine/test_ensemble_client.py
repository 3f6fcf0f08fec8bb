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


def settings(vocabulary: int, *, compiled: bool = False, data_parallel: int = 1) -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(get_vocab_size=lambda: vocabulary),
        compilation_config=SimpleNamespace(
            mode=CompilationMode.VLLM_COMPILE if compiled else CompilationMode.NONE, cudagraph_mode=CUDAGraphMode.NONE
        ),
        parallel_config=SimpleNamespace(data_parallel_size=data_parallel),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=2048),
    )


class Engine:
    """Says of position p, for the token after it, that epistemic is p and aleatoric -p."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.requests: list[tuple[list[int], dict[str, Any], str]] = []
        self.open: dict[str, tuple[int, int]] = {}
        self.running = 0
        self.fail_at = fail_at

    async def generate(self, prompt: Any, params: Any, request_id: str, **_: Any) -> AsyncIterator[Any]:
        own = params.extra_args[MEMBER_ARG]
        self.requests.append((prompt["prompt_token_ids"], own, prompt["cache_salt"]))
        self.open[own["ensemble"]] = (own["start"], len(prompt["prompt_token_ids"]))
        self.running += 1
        try:
            await asyncio.sleep(0.01 * (own["member"] + 1))
            if own["member"] == self.fail_at:
                raise ConnectionError("the engine is gone")
            yield SimpleNamespace(num_cached_tokens=2)
        finally:
            self.running -= 1

    async def collective_rpc(self, method: str, args: tuple[str]) -> list[Any]:
        positions = self.open.pop(args[0], None)
        if method == "drop_mixture" or positions is None:
            return [None]
        return [None, [[float(p), float(-p)] for p in range(*positions)]]  # a rank without logits has nothing


def score(engine: Engine, prompt: int, answer: int, *, vocabulary: int = 100, members: int = 3) -> Any:
    ensemble = Ensemble(engine, settings(vocabulary))  # type: ignore[arg-type]
    return asyncio.run(ensemble.score(ScoredAnswer(range(prompt), range(prompt, prompt + answer)), members))


def test_each_token_gets_what_the_position_before_it_says() -> None:
    engine = Engine()
    found = score(engine, 5, 4)
    assert found.epistemic == [4, 5, 6, 7]
    assert found.aleatoric == [-4, -5, -6, -7]
    assert found.computed == 3 * (8 - 2)
    assert [ids for ids, _, _ in engine.requests] == [list(range(8))] * 3
    assert len({salt for _, _, salt in engine.requests}) == 3
    assert not engine.open


def test_a_long_answer_is_scored_in_parts_that_fit_the_buffer() -> None:
    engine = Engine()
    vocabulary = MIXTURE_BYTES // 4 // 10  # ten positions
    found = score(engine, 3, 25, vocabulary=vocabulary, members=2)
    assert found.epistemic == list(range(2, 27))
    parts = sorted({(own["start"], len(ids)) for ids, own, _ in engine.requests})
    assert parts == [(2, 12), (12, 22), (22, 27)]
    assert all(stop - start <= 10 for start, stop in parts)


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


def test_clients_that_share_no_cache_share_no_members_blocks() -> None:
    engine = Engine()

    async def both() -> None:
        ensemble = Ensemble(engine, settings(100))  # type: ignore[arg-type]
        for salt in ("a", "b"):
            await ensemble.score(ScoredAnswer(range(5), range(5, 9), cache_salt=salt), 2)

    asyncio.run(both())
    assert len({salt for _, _, salt in engine.requests}) == 4


def test_only_names_of_this_process_are_its_own() -> None:
    engine = Engine()
    score(engine, 5, 4)
    assert all(is_own(own) for _, own, _ in engine.requests)
    assert not any(map(is_own, ["text", None, {}, {"ensemble": "guessed"}, {"ensemble": None}]))


@pytest.mark.parametrize(
    ("options", "said"), [({"compiled": True}, "--enforce-eager"), ({"data_parallel": 2}, "data parallelism")]
)
def test_engines_that_have_none_say_why(options: dict[str, Any], said: str) -> None:
    assert said in (Ensemble(Engine(), settings(100, **options)).unavailable or "")  # type: ignore[arg-type]
    assert Ensemble(Engine(), settings(100)).unavailable is None  # type: ignore[arg-type]
