"""The official Python client, unmodified, gets from this server what it gets from OpenAI's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.api.test_chat import calling_a_tool
from tests.support.facts import ANSWER, KNOWN
from tests.support.servers import Server

pytestmark = pytest.mark.server

QUESTION: Any = [{"role": "user", "content": KNOWN}]
ASKED: dict[str, Any] = {"model": "demo", "messages": QUESTION, "temperature": 0}


def test_a_chat_has_its_answer_and_usage_that_adds_up(client: OpenAI) -> None:
    answer = client.chat.completions.create(**ASKED)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_completion_of_several_prompts(client: OpenAI) -> None:
    answer = client.completions.create(model="demo", prompt=["Peru", "Kenya"], max_tokens=3, n=2, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all(choice.text for choice in answer.choices)


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_joins_to_the_answer_and_has_usage_only_on_request(client: OpenAI, include_usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    *chunks, last = client.chat.completions.create(**ASKED, stream=True, **options)
    text = "".join(choice.delta.content or "" for chunk in [*chunks, last] for choice in chunk.choices)
    assert text == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in [*chunks, last]}) == 1
    assert not any(chunk.usage for chunk in chunks)
    if include_usage:
        whole = client.chat.completions.create(**ASKED)
        assert (last.choices, last.usage) == ([], whole.usage)
    else:
        assert (last.choices[0].finish_reason, last.usage) == ("stop", None)


def test_stream_of_completions(client: OpenAI) -> None:
    options: Any = {"model": "demo", "prompt": "The capital of Peru", "max_tokens": 6, "temperature": 0}
    *chunks, last = client.completions.create(**options, stream=True, stream_options={"include_usage": True})
    whole = client.completions.create(**options)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert (last.choices, last.usage) == ([], whole.usage)


def test_the_stream_helper_tells_its_events_and_the_final_answer(client: OpenAI) -> None:
    with client.chat.completions.stream(**ASKED, logprobs=True) as stream:
        events = [event.type for event in stream]
    assert stream.get_final_completion().choices[0].message.content == ANSWER
    assert {"chunk", "content.delta", "content.done", "logprobs.content.done"} <= set(events)


@pytest.mark.parametrize("stream", [False, True])
def test_n_choices_each_end_once(client: OpenAI, stream: bool) -> None:
    answer: Any = client.chat.completions.create(**ASKED | {"temperature": 1}, n=3, max_tokens=4, stream=stream)
    choices = [choice for part in (answer if stream else [answer]) for choice in part.choices]
    assert {choice.index for choice in choices} == {0, 1, 2}
    assert sum(choice.finish_reason is not None for choice in choices) == 3


@pytest.mark.parametrize("stop", [" Peru", ["is", " Peru"]], ids=str)
def test_a_stop_string_ends_the_answer(client: OpenAI, stop: Any) -> None:
    choice = client.chat.completions.create(**ASKED, stop=stop).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("The capital of", "stop")


def test_max_completion_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(**ASKED, max_completion_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_a_seed_repeats_its_sample_and_another_does_not(client: OpenAI) -> None:
    def sample(seed: int) -> str | None:
        options = ASKED | {"temperature": 2, "max_tokens": 12}
        return client.chat.completions.create(**options, seed=seed).choices[0].message.content

    assert sample(1) == sample(1) != sample(2)


def test_a_logit_bias_of_100_forces_its_token(client: OpenAI) -> None:
    first = client.completions.create(model="demo", prompt="Peru", max_tokens=1, temperature=0, logprobs=0)
    assert first.choices[0].logprobs is not None
    (token,) = client.post("/../tokenize", body={"model": "demo", "prompt": "x"}, cast_to=dict[str, Any])["tokens"]
    forced = client.completions.create(
        model="demo", prompt="Peru", max_tokens=1, temperature=0, logit_bias={str(token): 100}
    )
    assert first.choices[0].text != forced.choices[0].text == "x"


def test_logprobs_hold_the_answer_and_the_most_probable_tokens(client: OpenAI) -> None:
    choice = client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=3).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    tokens = choice.logprobs.content
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode().startswith(ANSWER)
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == token.logprob == max(top.logprob for top in token.top_logprobs)


def test_logprobs_of_completions(client: OpenAI) -> None:
    choice = client.completions.create(model="demo", prompt="Peru", max_tokens=4, temperature=0, logprobs=2).choices[0]
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None
    assert "".join(found.tokens) == choice.text
    for values in (found.text_offset, found.token_logprobs, found.top_logprobs):
        assert values is not None
        assert len(values) == 4
    assert all(len(top) == 2 for top in found.top_logprobs or [])


def test_echo_of_token_ids(client: OpenAI) -> None:
    """As evaluation harnesses ask for the likelihood of a text."""
    body = {"model": "demo", "prompt": "The capital of Peru"}
    ids = client.post("/../tokenize", body=body, cast_to=dict[str, Any])["tokens"]
    choice = client.completions.create(model="demo", prompt=ids, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert choice.text == "The capital of Peru"
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert len(choice.logprobs.token_logprobs) == len(ids)


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_tool_call_has_an_id_and_arguments_of_its_schema(client: OpenAI, stream: bool) -> None:
    answer: Any = client.chat.completions.create(**ASKED, **calling_a_tool(), stream=stream)
    parts = [choice for part in (answer if stream else [answer]) for choice in part.choices]
    calls = [call for part in parts for call in (part.delta if stream else part.message).tool_calls or []]
    assert calls[0].type == "function"
    assert calls[0].id
    assert calls[0].function.name == "look"
    arguments = json.loads("".join(call.function.arguments or "" for call in calls))
    assert arguments in ({"place": "here"}, {"place": "there"})


class Sureness(BaseModel):
    sure: Literal["yes", "no"]


def test_an_answer_is_parsed_into_the_class_that_was_asked_for(client: OpenAI) -> None:
    """The client turns the class into a strict JSON schema, and the answer into an instance."""
    blanks = calling_a_tool()["logit_bias"]
    answer = client.chat.completions.parse(**ASKED, response_format=Sureness, logit_bias=blanks, max_tokens=60)
    assert isinstance(answer.choices[0].message.parsed, Sureness)


def test_a_clients_request_id_comes_back_with_answers_and_errors(client: OpenAI) -> None:
    assert client.chat.completions.create(**ASKED)._request_id
    named = client.chat.completions.create(**ASKED, extra_headers={"X-Request-Id": "mine-1"})
    assert named._request_id == "mine-1"
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**ASKED | {"model": "none"}, extra_headers={"X-Request-Id": "mine-2"})
    assert caught.value.request_id == "mine-2"


Ask = Callable[[OpenAI], Any]

WRONG: dict[str, tuple[type[openai.APIStatusError], str | None, str, Ask]] = {
    "no such model": (
        openai.NotFoundError,
        "model",
        "model_not_found",
        lambda client: client.chat.completions.create(**ASKED | {"model": "none"}),
    ),
    "out of range": (
        openai.BadRequestError,
        "temperature",
        "invalid_value",
        lambda client: client.chat.completions.create(**ASKED | {"temperature": -1}),
    ),
    "wrong type": (
        openai.BadRequestError,
        "top_p",
        "invalid_value",
        lambda client: client.completions.create(model="demo", prompt="Hi", extra_body={"top_p": []}),
    ),
    "missing": (
        openai.BadRequestError,
        "messages",
        "missing_required_parameter",
        lambda client: client.post("/chat/completions", body={"model": "demo"}, cast_to=object),
    ),
    "too long a chat": (
        openai.BadRequestError,
        "messages",
        "context_length_exceeded",
        lambda client: client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "a b " * 600}]
        ),
    ),
    "too long a prompt": (
        openai.BadRequestError,
        "prompt",
        "context_length_exceeded",
        lambda client: client.completions.create(model="demo", prompt=[5] * 5000),
    ),
    "no such route": (
        openai.NotFoundError,
        None,
        "not_found",
        lambda client: client.files.list(),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_error_has_its_class_param_and_code(client: OpenAI, case: str) -> None:
    kind, param, code, ask = WRONG[case]
    with pytest.raises(kind) as caught:
        ask(client)
    error = caught.value
    assert (type(error), error.param, error.code) == (kind, param, code)
    assert error.type == "invalid_request_error"
    assert error.request_id
    assert isinstance(error.body, dict)
    assert "\n" not in error.body["message"]


def test_each_listed_model_is_retrieved_and_an_unknown_one_is_not_found(client: OpenAI) -> None:
    listed = list(client.models.list())
    assert [model.object for model in listed] == ["model", "model"]
    assert [client.models.retrieve(model.id).id for model in listed] == [model.id for model in listed]
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("nobody/else")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


@asynccontextmanager
async def opened(demo: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


async def together(client: AsyncOpenAI) -> None:
    answers = await asyncio.gather(*(client.chat.completions.create(**ASKED) for _ in range(8)))
    assert {answer.choices[0].message.content for answer in answers} == {ANSWER}


async def streamed(client: AsyncOpenAI) -> None:
    chunks = await client.chat.completions.create(**ASKED, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]) == ANSWER


async def left_early(client: AsyncOpenAI) -> None:
    async with await client.chat.completions.create(**ASKED, stream=True) as chunks:
        async for _ in chunks:
            break
    await streamed(client)


async def refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="none", prompt="Hi")


@pytest.mark.parametrize("use", [together, streamed, left_early, refused])
def test_the_async_client_gets_the_same_answers_and_errors(
    demo: Server, use: Callable[[AsyncOpenAI], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        async with opened(demo) as client:
            await use(client)

    asyncio.run(run())
