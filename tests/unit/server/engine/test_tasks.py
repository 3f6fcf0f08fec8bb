"""The number of requests that go to the engine at a time."""

from __future__ import annotations

import asyncio

from server.engine.tasks import Room, together


def test_no_more_tokens_are_under_way_than_there_is_room_for_and_the_order_is_kept() -> None:
    room = Room(100)
    under_way, most, order = 0, 0, []

    async def run(number: int, tokens: int) -> None:
        nonlocal under_way, most
        async with room.take(tokens):
            order.append(number)
            under_way += tokens
            most = max(most, under_way)
            await asyncio.sleep(0.001)
            under_way -= tokens

    async def all_of_them() -> None:
        await together(run(number, tokens) for number, tokens in enumerate([40, 40, 100, 10, 90, 40, 60, 1] * 3))

    asyncio.run(all_of_them())
    assert most == 100
    assert order == sorted(order)
    assert room.free == 100


def test_what_is_larger_than_the_room_goes_alone_and_who_gives_up_leaves_it() -> None:
    room = Room(100)

    async def run() -> None:
        async with room.take(1000):
            assert room.free == 0
            waiting = asyncio.create_task(room.take(1).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with room.take(100):
            assert room.free == 0

    asyncio.run(run())
    assert room.free == 100
