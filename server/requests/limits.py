"""Limits on requests, and fields that clients may not set, as far as they do not depend on the engine.

`server.engine.client` holds the limits that depend on the model, its vocabulary and its length.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from transformers import PreTrainedTokenizerBase
from vllm.entrypoints.serve.engine.protocol import OpenAIBaseModel
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RepetitionDetectionParams, StructuredOutputsParams

from model_impl.wire import ARG_PREFIX
from server.requests.formats import AnyFormat

MAX_CHOICES = 128
"""OpenAI's limit."""

MAX_SEQUENCES = 1024
"""Limit on the choices of all prompts together."""

MAX_STOPS = 64
"""The server searches for each stop string after every token. OpenAI allows 4."""

MAX_BAD_WORDS = 64
"""vLLM takes 128 sequences of tokens and makes two of each word, with and without a space before it."""

MAX_ALTERNATIVES = 20
"""OpenAI's limit on `top_logprobs`, alternatives of a token."""

MAX_BIASES = 1024
INT32, INT64 = 2**31 - 1, 2**63 - 1

TRANSFERS = ("kv_transfer_params", "ec_transfer_params")
"""Parameters for transfers between engines, of which this server has one."""

NOT_FOR_CLIENTS = ("chat_template", "documents", "media_io_kwargs", "mm_processor_kwargs", "prompt_embeds", *TRANSFERS)
"""Programs, and fields that a text-only server has no use for."""

TEMPLATE_ARGUMENTS = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) | {"messages"}
"""The server's own arguments to the template; `chat_template_kwargs` may only set the template's variables."""

TOOL_CHOICES = ("none", "auto", "required")

Text = Annotated[str, Field(min_length=1, max_length=1000)]
_TOKEN_ID = re.compile("[0-9]{1,9}")
TokenId = Annotated[str, Field(pattern=f"^{_TOKEN_ID.pattern}$")]
"""As the key of a JSON object."""


def _with_ids_as_keys(value: Any) -> Any:
    """An error of its own, because pydantic's would repeat a key that may be long."""
    if isinstance(value, dict) and not all(_TOKEN_ID.fullmatch(key) for key in value):
        raise VLLMValidationError("`logit_bias` must have token ids as keys.", parameter="logit_bias")
    return value


class RequestLimits(OpenAIBaseModel):
    """Limited fields that chat and completion requests share. As the first base class it replaces vLLM's fields of the
    same names."""

    n: int | None = Field(default=1, ge=1, le=MAX_CHOICES, strict=True)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=INT32)
    min_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    length_penalty: float = Field(default=1.0, ge=-10, le=10)
    min_tokens: int = Field(default=0, ge=0, le=INT32)
    stop: Text | Annotated[list[Text], Field(max_length=MAX_STOPS)] | None = Field(default_factory=list)
    bad_words: list[Text] = Field(default_factory=list, max_length=MAX_BAD_WORDS)
    stop_token_ids: list[int] | None = Field(default_factory=list, max_length=MAX_BIASES)
    logit_bias: Annotated[
        dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None, BeforeValidator(_with_ids_as_keys)
    ] = Field(default=None, max_length=MAX_BIASES)
    response_format: AnyFormat | None = None
    best_of: int | None = Field(default=None, description="Taken only where it changes nothing: equal to `n`.")

    @model_validator(mode="before")
    @classmethod
    def _check_before_vllm_reads(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        refuse_templates(data)
        _check_parts(data)
        if not isinstance(choice := data.get("tool_choice"), Mapping | None) and choice not in TOOL_CHOICES:
            message = '`tool_choice` must be "none", "auto", "required" or a named tool.'
            raise VLLMValidationError(message, parameter="tool_choice")
        for name, problem in _problems_of_messages(data):
            raise VLLMValidationError(problem, parameter=name)
        if not _fits(data.get("vllm_xargs")):
            raise VLLMValidationError("`vllm_xargs` takes integers of 64 bits.", parameter="vllm_xargs")
        arguments = data.get("vllm_xargs")
        for name in arguments if isinstance(arguments, dict) else ():
            if name.startswith(ARG_PREFIX) or name in TRANSFERS:
                raise not_in_arguments(name)
        # Pydantic would read false as 0, which asks for the logprobs of the chosen tokens.
        return dict(data) | {name: None for name in ("logprobs", "prompt_logprobs") if data.get(name) is False}

    @model_validator(mode="after")
    def _check_together(self) -> RequestLimits:
        choices, prompt = self.n or 1, getattr(self, "prompt", None)
        if self.best_of not in (None, choices):
            raise VLLMValidationError("`best_of` must be equal to `n`.", parameter="best_of")
        if prompt == []:
            raise VLLMValidationError("`prompt` must not be empty.", parameter="prompt")
        prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
        if choices * prompts > MAX_SEQUENCES:
            message = f"`n` times the prompts must be at most {MAX_SEQUENCES}, not {choices} times {prompts}."
            raise VLLMValidationError(message, parameter="n")
        return self


@contextmanager
def blame_parameter(parameter: str | None = None, known: Container[str] = ()) -> Iterator[None]:
    """Give vLLM's errors a parameter where they name none: the one of `known` with which the message begins, or else
    `parameter`."""
    try:
        yield
    except VLLMValidationError as error:
        if error.parameter is not None:
            raise
        word = str(error).partition(" ")[0]
        raise VLLMValidationError(str(error), parameter=word if word in known else parameter) from error


def _check_parts(data: Mapping[str, Any]) -> None:
    """Check fields that vLLM's validators read before their types are checked; vLLM's errors name no parameter."""
    parts = {"structured_outputs": StructuredOutputsParams, "repetition_detection": RepetitionDetectionParams}
    for name, kind in parts.items():
        value = data.get(name)
        if value is None or isinstance(value, kind):
            continue
        try:
            kind(**value)
        except VLLMValidationError as error:
            said = str(error.args[0]).partition(": {")[0]  # without all that was given
            raise VLLMValidationError(said, parameter=name) from error
        except (TypeError, ValueError) as error:
            known = ", ".join(field.name for field in dataclasses.fields(kind) if field.init)
            message = f"`{name}` must be an object with fields of these names and their types: {known}."
            raise VLLMValidationError(message, parameter=name) from error


def check_prompt(prompt: Any) -> None:
    """Raises VLLMValidationError for a wrong prompt of a completion. vLLM's union would blame another place, or accept
    it: true is an integer to it."""
    if prompt is None or prompt == "":
        raise VLLMValidationError("`prompt` must be given, and not be empty.", parameter="prompt")
    if not isinstance(prompt, list) or not prompt:
        return
    kind = type(prompt[0])
    if kind is not int and len(prompt) > MAX_SEQUENCES:
        message = f"`prompt` may be a list of at most {MAX_SEQUENCES} prompts, not {len(prompt)}."
        raise VLLMValidationError(message, parameter="prompt")
    message = "`prompt` must be a text, a list of token ids, or a list of either."
    for i, part in enumerate(prompt):
        if type(part) is not kind or kind not in (int, str, list):
            raise VLLMValidationError(message, parameter=f"prompt[{i}]")
        for j, token in enumerate(part if kind is list else ()):
            if type(token) is not int:
                raise VLLMValidationError(message, parameter=f"prompt[{i}][{j}]")


def refuse_templates(data: Mapping[str, Any]) -> None:
    """Raises VLLMValidationError for NOT_FOR_CLIENTS and TEMPLATE_ARGUMENTS."""
    for name in NOT_FOR_CLIENTS:
        if data.get(name) is not None:
            raise VLLMValidationError(f"This server takes no `{name}` from clients.", parameter=name)
    arguments = data.get("chat_template_kwargs")
    taken = sorted(TEMPLATE_ARGUMENTS.intersection(arguments)) if isinstance(arguments, dict) else ()
    if taken:
        message = f"`chat_template_kwargs` cannot set `{taken[0]}`."
        raise VLLMValidationError(message, parameter="chat_template_kwargs")


def not_in_arguments(name: str) -> VLLMValidationError:
    """The error for `vllm_xargs` that set an argument of the server's own, or one that has its own field."""
    return VLLMValidationError(f"`vllm_xargs` cannot set `{name[:64]}`.", parameter="vllm_xargs")


def _problems_of_messages(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Parameters and problems on which vLLM's validators would fail before `server.requests.messages` is used."""
    if "messages" not in data:
        return
    if not isinstance(data["messages"], list) or not data["messages"]:
        yield "messages", "`messages` must be a list of at least one message."
        return
    for i, message in enumerate(data["messages"]):
        if isinstance(message, dict) and not isinstance(message.get("tool_calls"), list | None):
            yield f"messages[{i}].tool_calls", "`tool_calls` must be a list."


def _fits(value: Any) -> bool:
    if isinstance(value, int):
        return -INT64 <= value <= INT64
    if isinstance(value, dict | list):
        return all(map(_fits, value.values() if isinstance(value, dict) else value))
    return True
