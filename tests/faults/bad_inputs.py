"""Requests that must be refused with 400 and the name of the offending parameter.

Route, parameter and body of each are in `BAD`.
"""

from __future__ import annotations

from typing import Any

from model_impl.wire import MEMBER_ARG
from tests.faults.lasting import NAME

BIG = 2**63

PARAMETERS: dict[str, list[Any]] = {
    "n": [0, -1, 129, 10**9, BIG, "2", 1.5, True, []],
    "best_of": [0, 5, "x"],
    "max_tokens": [-1, BIG, 10**30, "x"],
    "min_tokens": [-1, 5000, BIG],
    "temperature": [-1, 2.1, 1e308, "hot"],
    "top_p": [0, -1, 1.1, "x"],
    "top_k": [-2, BIG, 10**20, 1.5],
    "min_p": [-1, 2],
    "seed": [BIG, -BIG - 1, 10**30, "x", 1.5],
    "presence_penalty": [-3, 3],
    "frequency_penalty": [-3, 3],
    "repetition_penalty": [0, -1, 1e308],
    "length_penalty": [1e308],
    "stop": ["", [""], ["x"] * 65, ["x" * 100_000], 5, [None]],
    "bad_words": [[""], ["x"] * 65, ["x" * 100_000], "x"],
    "stop_token_ids": [[-1], [10**6], [BIG], [10**30], list(range(4000)), ["x"]],
    "allowed_token_ids": [[], [-1], [10**6], [BIG]],
    "logit_bias": [
        *({key: 1} for key in ("-1", "1000000", str(BIG), "x", "9" * 5000, " 1 ", "1_0", "\u0661")),
        *({"1": value} for value in (101, -1e9, "x", None)),
        {str(i): 1 for i in range(2000)},
    ],
    "logprob_token_ids": [[-1], [BIG], list(range(200))],
    "prompt_logprobs": [-2, 1000, BIG],
    "truncate_prompt_tokens": [-2, BIG],
    "priority": [BIG],
    "stream_interval": [0],
    "thinking_token_budget": [-5, BIG],
    "cache_salt": ["", "x" * 2000, 5],
    "vllm_xargs": [{"a": 10**30}, {"a": {"b": 1}}, "x", {MEMBER_ARG: 1}],
    "repetition_detection": [{"max_pattern_size": -1}, {"max_pattern_size": 3, "min_count": 1}, "x"],
    "prompt_embeds": ["AAAA"],
    "structured_outputs": [
        *("x", {}, {"nope": 1}, {"json_object": False}, {"regex": "a", "choice": ["b"]}, {"choice": []}),
        *({"regex": "("}, {"regex": "(?=a)a"}, {"regex": "a\x00"}, {"regex": "a" * 70_000}),
        *({"grammar": ""}, {"grammar": "x"}, {"json": "{"}, {"json": {"type": "nope"}}, {"json": "[" * 5000}),
        *({"structural_tag": "{}"}, {"structural_tag": "x"}),
    ],
    "response_format": [
        *("x", {"type": "nope"}, {"type": "json_schema"}, {"type": "structural_tag"}),
        *({"type": "json_schema", "json_schema": schema} for schema in ({}, {"name": "a"}, {"schema": {}}, "x")),
        *(
            {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
            for schema in ({"type": 5}, {"enum": ["a\x00"]})
        ),
    ],
    "uncertainty": ["x", {"ensemble": BIG}],
}

MEDIA = [
    {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}},
    {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    {"type": "video_url", "video_url": {"url": "http://127.0.0.1:9/"}},
    {"type": "image_embeds", "image_embeds": "AAAA"},
    {"type": "prompt_embeds", "prompt_embeds": "AAAA"},
    {"type": "file", "file": {"file_data": "x"}},
    {"image_url": "http://127.0.0.1:9/"},
    {"type": []},
    {"text": "x"},
    {"type": "text"},
    {"type": "text", "text": None},
    {"type": "text", "text": ["x"]},
    "x",
    None,
    5,
]
"""Bytes that are no part of a text."""

TEXT = {"type": "text", "text": "x"}

CHAT: dict[str, list[Any]] = {
    "messages": [
        *(None, [], "x", [{}], [5]),
        *(
            [{"role": "user", "content": content}]
            for content in (None, 5, "x" * 200_000, "\ud800", *([p] for p in MEDIA), *([TEXT, p] for p in MEDIA))
        ),
        *([{"role": "user", "content": "x", "name": name}] for name in (5, "a\x00b")),
        [{"role": "assistant", "content": "x", "tool_calls": 5}],
    ],
    "top_logprobs": [-1, -2, 21, BIG, "x"],
    "max_completion_tokens": [-1, 0],
    "tools": ["x", [{}], [{"type": "function", "function": {"name": "x", "parameters": 5}}]],
    "tool_choice": ["required", "nope", {"type": "function", "function": {"name": "x"}}],
    "chat_template": ["{{ 1 }}"],
    "chat_template_kwargs": ["x", *({name: 5} for name in ("chat_template", "tools", "messages", "tokenize", "self"))],
    "documents": [[{"title": "x", "text": "y"}], "x"],
    "media_io_kwargs": [{"image": {"a": 1}}],
    "mm_processor_kwargs": [{"a": 1}],
    "reasoning_effort": ["nope"],
}

COMPLETION: dict[str, list[Any]] = {
    "prompt": [
        *(None, "", [], [[]], [""], ["x", ""], 5, {"prompt": "x"}, [["x"]], [1.5], [None], [[1], ["x"]]),
        *([-1], [10**6], [BIG], [10**30], [[1], [BIG]]),
        *(["x"] * 5000, "x" * 200_000, [5] * 100_000, "\ud800"),
    ],
    "logprobs": [-1, -2, 21, BIG, "x"],
    "max_tokens": [0],
    "echo": ["x"],
    "suffix": ["x"],
}

GIVEN: dict[str, list[Any]] = {
    "prompt": [[-1], [BIG], "", "x" * 200_000],
    "completion": [None, [], 5, ["x"] * 129, "x" * 200_000],
    "top_logprobs": [-1, 21, BIG],
    "uncertainty": [False, {"ensemble": 10**9}],
    "chat_template": ["x"],
    "priority": [BIG],
}

ROUTES = {
    "/v1/completions": ({"prompt": "Hi", "max_tokens": 4}, PARAMETERS | COMPLETION),
    "/v1/chat/completions": ({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}, PARAMETERS | CHAT),
    "/v1/uncertainty": ({"prompt": "Hi", "completion": "x"}, GIVEN),
}


def _needed(name: str) -> dict[str, Any]:
    """Fields without which the parameter would be refused for another reason."""
    return {"logprobs": True} if name in ("top_logprobs", "logprob_token_ids") else {}


BAD = [
    (route, name, {"model": NAME, **good, **_needed(name), name: value})
    for route, (good, table) in ROUTES.items()
    for name, values in table.items()
    for value in values
]
