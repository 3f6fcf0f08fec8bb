"""pydantic-ai: agents whose output is a class, by tools and by JSON schemas, of chats and of responses."""

from __future__ import annotations

import asyncio
import sys

from people import QUESTION, Person
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


async def main() -> None:
    provider = OpenAIProvider(base_url=sys.argv[1], api_key="none")
    for model in (OpenAIChatModel("demo", provider=provider), OpenAIResponsesModel("demo", provider=provider)):
        for output in (Person, ToolOutput(Person, strict=True), NativeOutput(Person)):
            agent = Agent(model, output_type=output, retries=0)
            found = (await agent.run(QUESTION)).output
            assert isinstance(found, Person), found
            async with agent.run_stream(QUESTION) as stream:
                assert isinstance(await stream.get_output(), Person)
            print(type(model).__name__, type(output).__name__)
        talk = Agent(model)
        first = await talk.run(QUESTION)
        second = await talk.run("And who are you?", message_history=first.all_messages())
        assert second.output
        print(type(model).__name__, "turns")


asyncio.run(main())
