"""Several engine requests as one, and a limit on their tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


async def together(coroutines: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results in order. When one fails or the caller is cancelled, the others are cancelled and waited for.

    `asyncio.TaskGroup` would wrap the exception, which the app's handlers would then not recognise.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Room:
    """A limit on the tokens of all requests together, first come, first served."""

    def __init__(self, tokens: int) -> None:
        self.tokens = self.free = tokens
        self.turn = asyncio.Lock()
        self.left = asyncio.Event()

    @asynccontextmanager
    async def take(self, tokens: int) -> AsyncIterator[None]:
        """Hold room for one request. One that is larger than the limit runs alone."""
        tokens = min(tokens, self.tokens)
        async with self.turn:
            while self.free < tokens:
                self.left.clear()
                await self.left.wait()
            self.free -= tokens
        try:
            yield
        finally:
            self.free += tokens
            self.left.set()
