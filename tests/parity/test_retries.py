"""The official clients retry what the gate turned away, and wait as long as its `Retry-After` says."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.parity.overloaded import RETRY_AFTER, Overload, overloaded

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def ask(overload: Overload, retries: int) -> Any:
    with OpenAI(base_url=overload.url, api_key="none", max_retries=retries) as client:
        return client.chat.completions.create(**BODY)


async def ask_async(overload: Overload, retries: int) -> Any:
    async with AsyncOpenAI(base_url=overload.url, api_key="none", max_retries=retries) as client:
        return await client.chat.completions.create(**BODY)


@pytest.mark.parametrize("status", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
@pytest.mark.parametrize("is_async", [False, True])
def test_retry_after_is_honoured(status: HTTPStatus, is_async: bool) -> None:
    with overloaded(status) as overload:
        answer = asyncio.run(ask_async(overload, 1)) if is_async else ask(overload, 1)
    assert answer.choices[0].message.content == "at last"
    assert len(overload.asked) == 2
    assert overload.waited() >= RETRY_AFTER


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (HTTPStatus.TOO_MANY_REQUESTS, openai.RateLimitError),
        (HTTPStatus.SERVICE_UNAVAILABLE, openai.InternalServerError),
    ],
)
def test_without_retries_the_error_is_typed(status: HTTPStatus, kind: type[openai.APIStatusError]) -> None:
    with overloaded(status) as overload, pytest.raises(kind) as caught:
        ask(overload, 0)
    assert caught.value.code == "queue_full"
    assert caught.value.response.headers["retry-after"] == str(RETRY_AFTER)
    assert len(overload.asked) == 1
