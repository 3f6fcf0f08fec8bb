"""Answer a batch of questions, one a line on standard input, as JSON lines; what needs a person's eye is marked."""

import asyncio
import json
import os
import sys

from openai import AsyncOpenAI

AT_ONCE = 16
LIMIT = 0.5

client = AsyncOpenAI(base_url=os.environ.get("BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")


async def label(model: str, question: str, turn: asyncio.Semaphore) -> dict[str, object]:
    async with turn:
        answer = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    (choice,) = answer.choices
    risk = choice.uncertainty["risk"]  # null without a calibration: then a person looks, too
    return {
        "question": question,
        "answer": choice.message.content,
        "risk": risk,
        "review": risk is None or risk > LIMIT,
    }


async def main() -> None:
    model, turn = (await client.models.list()).data[0].id, asyncio.Semaphore(AT_ONCE)
    questions = filter(None, map(str.strip, sys.stdin))
    for line in await asyncio.gather(*(label(model, question, turn) for question in questions)):
        print(json.dumps(line))


asyncio.run(main())
