"""The work that a request asks for, estimated from its JSON on any route.

Fields of a wrong type and values that no route accepts weigh nothing: the route will refuse them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vllm.config import ModelConfig

from server.requests.limits import MAX_CHOICES, MAX_SEQUENCES
from server.requests.parameters import LIMITS, prompt_of

CHARACTERS_PER_TOKEN = 4
"""OpenAI's rule of thumb for English. Token ids are counted exactly, and prompts up to the model's length."""

COMPLETION_TOKENS = 16
"""Default limit of a completion; a chat without a limit goes on to the end of the context."""

ALTERNATIVES = ("logprobs", "top_logprobs")


@dataclass(frozen=True)
class Shape:
    """The properties of a model that decide how much a request weighs."""

    longest: int
    """The limit on one prompt and its answer, in tokens."""
    alternatives: int = 0
    """All alternatives of a token, for which -1 stands."""
    block: int = 0
    """Tokens of a KV cache block. An ensemble's members compute the prompt's last one, of which they share none."""

    @classmethod
    def of(cls, config: ModelConfig, block: int) -> Shape:
        return cls(config.max_model_len, config.get_vocab_size(), block)


@dataclass(frozen=True)
class Weight:
    """Estimates, over all sequences."""

    sequences: int = 1
    tokens: int = 0
    """Prompt tokens."""
    cells: int = 0
    """Numbers that the answer holds at once; an alternative of a token is one."""
    shown_by: str | None = None
    """The parameter that most of the cells are for."""
    rescored: int = 0
    """Tokens that the members of an ensemble run through the model."""
    multiplied_by: str | None = field(default=None, compare=False)
    """The parameter that most of the sequences are for."""


def weigh(body: object, shape: Shape) -> Weight:
    """The work in a request's JSON."""
    if not isinstance(body, Mapping):
        return Weight()
    prompts = list(_prompts(body))
    copies = max([1, *(number for name in ("n", "best_of") if (number := _number(body, name)) is not None)])
    listed = len(prompts) if isinstance(body.get("prompt"), list) else 1
    if copies > MAX_CHOICES or copies * listed > MAX_SEQUENCES:
        return Weight()
    sequences = copies * max(len(prompts), 1)
    tokens = copies * sum(min(_tokens(prompt), shape.longest) for prompt in prompts)
    answers = 0 if "completion" in body else sequences * _longest_answer(body, shape)
    columns = _columns(body, shape)
    shown_by = max(columns, key=lambda name: columns[name], default=None)
    at_once = 0 if body.get("stream") is True else answers  # a stream never holds all that it shows
    cells = sum(columns.values()) * (at_once + (tokens if _shows_prompt(body) else 0))
    scored = _given_tokens(body, shape) if "completion" in body else answers
    rescored = _members(body) * (scored + min(tokens, sequences * shape.block))
    return Weight(sequences, tokens, cells, shown_by, rescored, _multiplied_by(body, copies))


def _multiplied_by(body: Mapping[str, Any], copies: int) -> str | None:
    if copies > 1:
        return next(name for name in ("n", "best_of") if _number(body, name) == copies)
    return "completion" if "completion" in body else prompt_of(body)


def _prompts(body: Mapping[str, Any]) -> Iterator[object]:
    """The sequences to prefill: each prompt of a list, and each given text with the prompt before it."""
    asked = next((body[name] for name in ("prompt", "messages", "input") if body.get(name) is not None), None)
    if isinstance(body.get("completion"), list):
        yield from ([asked, text] for text in body["completion"])
    elif isinstance(asked, list) and asked and all(isinstance(part, str | list) for part in asked):
        yield from asked
    elif asked is not None:
        yield [asked, body.get("completion")]


def _tokens(prompt: object) -> int:
    if isinstance(prompt, str):
        return len(prompt) // CHARACTERS_PER_TOKEN + 1
    if isinstance(prompt, int):
        return 1
    if isinstance(prompt, Mapping):
        return sum(map(_tokens, prompt.values()))
    return sum(map(_tokens, prompt)) if isinstance(prompt, list) else 0


def _given_tokens(body: Mapping[str, Any], shape: Shape) -> int:
    texts = body["completion"] if isinstance(body["completion"], list) else [body["completion"]]
    return sum(min(_tokens(text), shape.longest) for text in texts)


def _longest_answer(body: Mapping[str, Any], shape: Shape) -> int:
    limits = [limit for name in LIMITS if (limit := _number(body, name)) is not None]
    default = COMPLETION_TOKENS if "prompt" in body else shape.longest
    return max(0, min([shape.longest, *(limits or [default])]))


def _columns(body: Mapping[str, Any], shape: Shape) -> dict[str, int]:
    """Parameter -> numbers that it adds to every token; the token's own logprob counts for each of them."""
    found: dict[str, int] = {}
    for name in (*ALTERNATIVES, "prompt_logprobs"):
        if (number := _number(body, name)) is not None:
            # What is no number of alternatives is refused by the route.
            found[name] = 1 + (shape.alternatives if number == -1 else number * (0 < number <= shape.alternatives))
        elif body.get(name) is True:
            found[name] = 1
    if isinstance(ids := body.get("logprob_token_ids"), list):
        found["logprob_token_ids"] = len(ids)
    options = body.get("uncertainty")
    if "completion" in body or (isinstance(options, Mapping) and options.get("tokens") is True):
        found["uncertainty" if "uncertainty" in body else "completion"] = 1
    return found


def _shows_prompt(body: Mapping[str, Any]) -> bool:
    """Whether the answer shows prompt tokens; for a given text the engine computes the prompt's logprobs, too."""
    return "completion" in body or body.get("echo") is True or body.get("prompt_logprobs") is not None


def _members(body: Mapping[str, Any]) -> int:
    options = body.get("uncertainty")
    return max(0, _number(options, "ensemble") or 0) if isinstance(options, Mapping) else 0


def _number(body: Mapping[str, Any], name: str) -> int | None:
    number = body.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) else None
