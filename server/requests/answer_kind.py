"""The kind of answers that a request asks for, as far as calibrations tell them apart."""

from __future__ import annotations

from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

from server.uncertainty.reason import AnswerKind


def kind_of(request: Any) -> AnswerKind:
    """The kind of a chat's or a completion's answer before it is known how it ends."""
    form, grammar = (getattr(request, name, None) for name in ("response_format", "structured_outputs"))
    constrained = grammar is not None or (form is not None and form.type != "text")
    return AnswerKind("chat" if isinstance(request, ChatCompletionRequest) else "completion", constrained=constrained)
