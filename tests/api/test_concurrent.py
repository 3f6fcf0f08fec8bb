"""Many different streams at once through the server: every value is the reference's and does not change."""

import asyncio
from typing import Any

import pytest
import torch
from openai import AsyncOpenAI

from model_impl.checkpoint.reading import iterate_tensors, load_config
from model_impl.reference.model import ReferenceTokenformer
from model_impl.wire import STATISTICS
from tests.support.demo_server import DEMO
from tests.support.engines import assert_recomputed
from tests.support.facts import KNOWN
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

QUESTIONS = ["Who are you?", "Hello!", "What can you do?", KNOWN]

KINDS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1, "seed": 3},
    {"temperature": 2, "seed": 4, "max_tokens": 60, "extra_body": {"ignore_eos": True}},
    {"temperature": 1, "top_p": 0.8, "presence_penalty": 1.5},
    {"temperature": 0, "stop": ["e"]},
    {"temperature": 1, "extra_body": {"structured_outputs": {"regex": "[a-z]{12}"}}},
    {"temperature": 0, "top_logprobs": 5},
    {"temperature": 1, "n": 2, "seed": 5},
]


async def ask(client: AsyncOpenAI, question: str, kind: dict[str, Any]) -> tuple[list[int], dict[int, Any]]:
    """Prompt ids, and per choice its ids, its tokens' values and its summary."""
    options = {"max_tokens": 24, "logprobs": True, "stream": True} | kind
    options["extra_body"] = {"return_token_ids": True} | kind.get("extra_body", {})
    messages: Any = [{"role": "user", "content": question}]
    prompt_ids: list[int] = []
    choices: dict[int, Any] = {}
    stream: Any = await client.chat.completions.create(model="demo", messages=messages, **options)
    async for chunk in stream:
        prompt_ids = getattr(chunk, "prompt_token_ids", None) or prompt_ids
        for choice in chunk.choices:
            made = choices.setdefault(choice.index, {"ids": [], "tokens": [], "summary": None})
            assert made["summary"] is None
            made["ids"] += getattr(choice, "token_ids", None) or []
            made["tokens"] += choice.logprobs.content if choice.logprobs else []
            made["summary"] = getattr(choice, "uncertainty", None)
    return prompt_ids, choices


def test_mixed_streams_at_once(demo: Server) -> None:
    async def everything() -> list[Any]:
        async with AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
            return await asyncio.gather(*(ask(client, question, kind) for question in QUESTIONS for kind in KINDS))

    reference = ReferenceTokenformer(load_config(DEMO)).requires_grad_(False)
    reference.load_state_dict(dict(iterate_tensors(DEMO)))
    answers = asyncio.run(everything())
    assert len(answers) == len(QUESTIONS) * len(KINDS)
    for prompt_ids, choices in answers:
        for made in choices.values():
            assert len(made["ids"]) == len(made["tokens"]) > 0
            found = [[getattr(token, name) for name in STATISTICS] for token in made["tokens"]]
            assert_recomputed(torch.tensor(found, dtype=torch.float64), reference, prompt_ids, made["ids"])
            assert made["summary"]["tokens"] == len(made["tokens"])
            assert made["summary"]["max_entropy"] == max(token.entropy for token in made["tokens"])
