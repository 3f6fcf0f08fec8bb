"""Small requests that would be costly to a server, each with the parameter that its refusal names."""

from __future__ import annotations

from typing import Any

Request = tuple[str, dict[str, Any], str | None]
"""Route, body, parameter."""

MESSAGES = [{"role": "user", "content": "Hi"}]
SHOWN = {"messages": MESSAGES, "temperature": 1, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}

MANY = 100_000
EMPTY: list[Request] = [
    ("/v1/responses", {"input": [{}] * 2000}, "input[0].type"),
    ("/v1/responses", {"input": [{"role": "user", "content": "a"}] * 2000 + [{}]}, "input[2000].type"),
    ("/v1/responses", {"input": "Hi", "tools": [1] * 2000}, "tools[0]"),
    ("/v1/chat/completions", {"messages": [{}] * 2000}, "messages[0].role"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{}] * 16_000}]}, "messages[0].content[0].type"),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [1] * 2000}, "tools[0]"),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [1] * MANY}, "tools"),
    ("/v1/chat/completions/batch", {"messages": [[{}] * 2000] * 8}, "messages[0][0].role"),
    ("/v1/messages", {"model": "demo", "max_tokens": 1, "messages": [{}] * 2000}, "messages[0].role"),
    ("/v1/uncertainty", {"messages": [{}] * 2000, "completion": "x"}, "messages[0].role"),
    ("/v1/trace", {"messages": [{}] * 2000}, "messages[0].role"),
    ("/tokenize", {"messages": [{}] * 2000}, "messages[0].role"),
    ("/invocations", {"messages": [{}] * 2000}, "messages[0].role"),
    ("/v1/completions", {"prompt": "x", "logit_bias": {str(i): "x" for i in range(60_000)}}, "logit_bias.0"),
    ("/v1/completions", {"prompt": [["x"]] * 16_000}, "prompt"),
    ("/v1/completions", {"prompt": "x", "unknown": [{}] * MANY}, None),
]


TOO_LARGE: list[Request] = [
    ("/v1/chat/completions", SHOWN | {"n": 128}, "top_logprobs"),
    ("/v1/completions", {"prompt": "Hi", "n": 128, "max_tokens": 400, "logprobs": 20}, "logprobs"),
    ("/v1/completions", {"prompt": [[5] * 500] * 128, "max_tokens": 1, "prompt_logprobs": 20}, "prompt_logprobs"),
    ("/v1/completions", {"prompt": [[5] * 500] * 128, "max_tokens": 0, "echo": True, "logprobs": 20}, "logprobs"),
    ("/v1/chat/completions/batch", SHOWN | {"messages": [MESSAGES] * 64}, "top_logprobs"),
    ("/v1/uncertainty", {"prompt": "Hi", "completion": ["x" * 1200] * 128, "top_logprobs": 20}, "top_logprobs"),
    (
        "/v1/uncertainty",
        {"prompt": "Hi", "completion": ["x" * 600] * 128, "uncertainty": {"ensemble": 64}},
        "uncertainty",
    ),
    ("/v1/chat/completions", {"messages": MESSAGES, "n": 16, "uncertainty": {"ensemble": 64}}, "uncertainty"),
]
