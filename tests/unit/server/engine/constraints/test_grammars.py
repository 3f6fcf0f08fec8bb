"""Grammars that are tried, and the refusal of those that take too much."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.config import StructuredOutputsConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

from server.engine.constraints import grammars
from server.engine.constraints.grammars import Grammars
from server.gate.admission import TurnedAway

ENDLESS = {"type": "array", "items": {"type": "string"}, "minItems": 10**8}


class Ticket:
    """The ticket of a request, which counts how often it is set aside."""

    def __init__(self, counted: list[int]) -> None:
        self.counted = counted

    @contextmanager
    def aside(self) -> Iterator[None]:
        self.counted.append(1)
        yield
        self.counted.append(-1)


def run(task: Callable[[Grammars], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        tried = Grammars(StructuredOutputsConfig(backend="guidance"))
        try:
            return await task(tried)
        finally:
            await tried.close()

    return asyncio.run(main())


async def reason(tried: Grammars, **constraint: Any) -> str | None:
    try:
        await tried.check(StructuredOutputsParams(**constraint), "x")
    except VLLMValidationError as error:
        assert error.parameter == "x"
        return str(error.args[0])
    return None


@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": "[a-z]{3,9}"},
        {"regex": ""},
        {"choice": ["yes", "no"]},
        {"json_object": True},
        {"json": {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}},
        {"json": json.dumps({"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"})},
        {"grammar": 'root ::= "a" [0-9]+'},
        {"grammar": "start: /[0-9]+/"},
    ],
    ids=str,
)
def test_a_grammar_that_can_be_had(constraint: dict[str, Any]) -> None:
    assert run(lambda tried: reason(tried, **constraint)) is None


@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": "("},
        {"regex": "((((a{0,1000}){0,1000}){0,1000}){0,1000}){0,1000}"},
        {"regex": "a" * 70_000},
        {"choice": []},
        {"json": "{"},
        {"json": "[" * 5000},
        {"json": {"type": "nope"}},
        {"json": {"$ref": "#"}},
        {"grammar": "nonsense"},
        {"grammar": 'root ::= "a" root'},
        {"structural_tag": "{}"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_grammar_that_cannot(constraint: dict[str, Any]) -> None:
    found = run(lambda tried: reason(tried, **constraint))
    assert found is not None
    assert "\n" not in found
    assert len(found) < 300


@pytest.mark.parametrize("constraint", [{"grammar": "a text " * 9}, {"json": {"type": "a text " * 9}}], ids=str)
def test_an_error_repeats_no_text_of_the_grammar(constraint: dict[str, Any]) -> None:
    found = run(lambda tried: reason(tried, **constraint))
    assert found is not None
    assert found.startswith("The grammar is not valid: ")
    assert "a text " * 4 not in found  # a few characters tell the place


def test_gbnf_reaches_the_engine_converted() -> None:
    async def checked(tried: Grammars) -> StructuredOutputsParams:
        params = StructuredOutputsParams(grammar='root ::= "a"')
        await tried.check(params, "x")
        return params

    params = run(checked)
    assert "start:" in params.grammar
    assert params._backend == "guidance"


def test_what_takes_too_long_is_killed_and_the_next_is_tried_anew() -> None:
    async def both(tried: Grammars) -> tuple[str | None, Any, str | None]:
        first = await reason(tried, json=ENDLESS)
        return first, tried.process, await reason(tried, regex="a")

    first, process, second = run(both)
    assert first == "The grammar takes too long or too much memory."
    assert process is None
    assert second is None


def test_what_was_found_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def twice(tried: Grammars) -> tuple[Any, ...]:
        first = await reason(tried, regex="a"), await reason(tried, regex="(")
        await tried.close()
        return *first, await reason(tried, regex="a"), await reason(tried, regex="("), tried.process

    a, bad, a_again, bad_again, process = run(twice)
    assert (a, bad) == (a_again, bad_again)
    assert process is None  # nobody was asked

    monkeypatch.setattr(grammars, "REMEMBERED", 2)

    async def many(tried: Grammars) -> int:
        for i in range(5):
            await reason(tried, regex=f"a{i}")
        return len(tried.found)

    assert run(many) == 2


def test_a_grammar_that_takes_a_second_is_refused_and_not_tried_twice() -> None:
    async def twice(tried: Grammars) -> tuple[str | None, str | None, Any]:
        slow = {"type": "integer", "multipleOf": 150_001}
        return await reason(tried, json=slow), await reason(tried, json=slow), tried.process

    assert run(twice) == (grammars.TOO_MUCH, grammars.TOO_MUCH, None)


def test_a_client_that_goes_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "GRAMMAR_SECONDS", 5.0)

    async def cut_off(tried: Grammars) -> str | None:
        task = asyncio.create_task(reason(tried, json=ENDLESS))
        while tried.process is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        return await reason(tried, regex="(")

    found = run(cut_off)
    assert found is not None
    assert "unclosed group" in found


def test_the_event_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "GRAMMAR_SECONDS", 1.0)

    async def counted(tried: Grammars) -> int:
        task = asyncio.create_task(reason(tried, json=ENDLESS))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    assert run(counted) > 20


def test_a_new_grammar_waits_aside_and_only_so_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting request holds no place of others, and a known grammar does not wait."""
    monkeypatch.setattr(grammars, "MOST_WAITING", 2)
    aside: list[int] = []
    context = SimpleNamespace(get=lambda: SimpleNamespace(ticket=Ticket(aside)))
    monkeypatch.setattr(grammars, "CONTEXT", context)

    async def task(tried: Grammars) -> None:
        known = StructuredOutputsParams(regex="known")
        await tried.check(known, "x")
        async with tried.turn:
            waiting = [asyncio.create_task(reason(tried, regex=f"a{i}")) for i in range(2)]
            await asyncio.sleep(0)
            assert sum(aside) == 2
            with pytest.raises(TurnedAway) as refused:
                await tried.check(StructuredOutputsParams(regex="b"), "x")
            assert refused.value.http_status == 429
            await tried.check(known, "x")
            waiting += [asyncio.create_task(reason(tried, regex="a0")) for _ in range(40)]  # which wait already
            await asyncio.sleep(0)
        assert await asyncio.gather(*waiting) == [None] * 42
        assert sum(aside) == len(tried.waiting) == 0

    run(task)
