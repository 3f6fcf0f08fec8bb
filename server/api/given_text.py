"""`POST /v1/uncertainty`: how sure the model is of a given text."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    SkipValidation,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, OpenAIBaseModel, UsageInfo
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.renderers import TokenizeParams
from vllm.sampling_params import SamplingParams

from server.api.chat import ScoredChat
from server.api.completion import ScoredCompletion
from server.api.request_scores import RequestScores
from server.engine.tasks import together
from server.gate.context import CONTEXT
from server.gate.errors import COMPLETION_TOKENS, INPUT_TOKENS
from server.requests.fail_fast import validated
from server.requests.limits import MAX_ALTERNATIVES, blame_parameter
from server.requests.messages import Messages
from server.requests.schemas import (
    BriefChatLogprobs,
    ScoredChatCompletionRequest,
    ScoredChatLogprobs,
    ScoredCompletionRequest,
    UncertaintyField,
    UncertaintyOptions,
    with_statistics,
)
from server.uncertainty.summary import Uncertainty

MAX_COMPLETIONS = 128
"""Texts in one request. Each becomes a request to the engine."""

MAX_TOKENS = 1 << 16
"""Tokens of prompts and completions, over all completions of a request."""

Completions = Annotated[list[StrictStr], Field(min_length=1, max_length=MAX_COMPLETIONS)]


class PromptRequest(OpenAIBaseModel):
    """Further fields are those of the chat or completion request with this prompt, such as `tools`,
    `add_special_tokens` or `priority`. Sampling parameters have no effect."""

    model: str | None = None
    messages: SkipValidation[Messages | None] = Field(default=None, description="A chat that the completions answer.")
    prompt: StrictStr | list[StrictInt] | None = Field(
        default=None, description="A text, or token ids, that the completions go on from; instead of `messages`."
    )

    @model_validator(mode="after")
    def _one_prompt(self) -> PromptRequest:
        if (self.messages is None) == (self.prompt is None):
            raise VLLMValidationError("give either `messages` or `prompt`", parameter="messages")
        return self

    def rendered(self, **fields: Any) -> ScoredChatCompletionRequest | ScoredCompletionRequest:
        """The request that would generate an answer to the prompt. Raises the errors of that request's route."""
        fields = {**(self.model_extra or {}), "model": self.model, **fields}
        try:
            if self.messages is not None:
                return validated(ScoredChatCompletionRequest, fields | {"messages": self.messages})
            return validated(ScoredCompletionRequest, fields | {"prompt": self.prompt})
        except ValidationError as error:
            errors = [{**found, "loc": ("body", *found["loc"])} for found in error.errors()]
            raise RequestValidationError(errors, body=dict(self)) from error


class GivenTextRequest(PromptRequest):
    completion: StrictStr | Completions = Field(
        description=f"The text to score, or up to {MAX_COMPLETIONS} texts. In a chat each is a whole answer, ended by "
        "the end-of-text token."
    )
    top_logprobs: int | None = Field(
        default=None, ge=0, le=MAX_ALTERNATIVES, description="Likeliest alternatives of every token."
    )
    uncertainty: UncertaintyField = True

    @model_validator(mode="after")
    def _with_uncertainty(self) -> GivenTextRequest:
        if self.uncertainty is False:
            raise VLLMValidationError("`uncertainty` cannot be false here", parameter="uncertainty")
        if isinstance(self.uncertainty, UncertaintyOptions) and self.uncertainty.on_doubt not in (None, "flag"):
            message = "`on_doubt` has no effect on a given text"
            raise VLLMValidationError(message, parameter="uncertainty.on_doubt")
        return self


class GivenTextChoice(BaseModel):
    index: int
    logprobs: SerializeAsAny[ScoredChatLogprobs]
    uncertainty: SerializeAsAny[Uncertainty]


class GivenTextResponse(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    object: Literal["uncertainty"] = "uncertainty"
    created: int
    model: str
    choices: list[GivenTextChoice] = Field(description="One per completion, in their order.")
    usage: UsageInfo


class GivenText:
    """Scores texts by the templates, tokenizer, models and engine of the two serving objects."""

    def __init__(self, chat: ScoredChat, completion: ScoredCompletion) -> None:
        self.chat, self.completion = chat, completion

    async def score(self, request: GivenTextRequest, raw_request: Request) -> GivenTextResponse | ErrorResponse:
        inner = request.rendered(uncertainty=request.uncertainty)
        prompt = await self.prompt_ids(inner)
        if isinstance(prompt, ErrorResponse):
            return prompt
        texts = [request.completion] if isinstance(request.completion, str) else request.completion
        answers = await asyncio.gather(*(self._answer_ids(text, inner) for text in texts))
        limit = self.chat.model_config.max_model_len
        for ids in answers:
            if len(prompt) + len(ids) >= limit:  # the engine always generates one more token
                message = (
                    f"prompt and completion have {len(prompt)} and {len(ids)} tokens; together they must be fewer "
                    f"than the model's {limit}"
                )
                too_long = COMPLETION_TOKENS if len(prompt) < limit else INPUT_TOKENS
                raise VLLMValidationError(message, parameter=too_long)
        total = sum(len(prompt) + len(ids) for ids in answers)
        if total > MAX_TOKENS:
            message = f"prompts and completions have {total} tokens; one request may have {MAX_TOKENS}"
            raise VLLMValidationError(message, parameter="completion")
        adapter = self.chat._maybe_get_adapters(inner)
        name = self.chat.models.model_name(adapter)
        request_id = f"uncertainty-{self.chat._base_request_id(raw_request)}"
        scores = self.chat.scores(inner, name, generated=False)
        positions = await together(
            self._positions(f"{request_id}-{i}", prompt, ids, inner, request, adapter) for i, ids in enumerate(answers)
        )
        for i, (text, ids, found) in enumerate(zip(texts, answers, positions, strict=True)):
            reason = "stop" if isinstance(inner, ScoredChatCompletionRequest) else "length"
            output = CompletionOutput(i, text, ids, None, found, finish_reason=reason)
            result = RequestOutput(request_id, None, prompt, None, [output], finished=True, lora_request=adapter)
            await asyncio.to_thread(scores.add, result)  # a long text takes a while
        await scores.rescore_all()
        choices = []
        for i, (ids, found) in enumerate(zip(answers, positions, strict=True)):
            choices.append(await asyncio.to_thread(self._choice, i, ids, found, scores, request.top_logprobs))
        tokens = sum(map(len, answers))
        usage = UsageInfo(prompt_tokens=len(prompt), completion_tokens=tokens, total_tokens=len(prompt) + tokens)
        if (record := CONTEXT.get().record) is not None:
            record.model, record.prompt_tokens, record.completion_tokens = name, len(prompt), tokens
        return GivenTextResponse(id=request_id, created=int(time.time()), model=name, choices=choices, usage=usage)

    def _choice(
        self, index: int, ids: list[int], positions: list[Any], scores: RequestScores, alternatives: int | None
    ) -> GivenTextChoice:
        logprobs = self.chat._create_chat_logprobs(
            ids, positions, tokenizer=self.chat.renderer.tokenizer, num_output_top_logprobs=alternatives
        )
        scores.label(index, logprobs.content or ())
        form = ScoredChatLogprobs if scores.options.include_null else BriefChatLogprobs
        shown = form.model_validate(logprobs.model_dump())
        return GivenTextChoice(index=index, logprobs=shown, uncertainty=scores.summary(index))

    async def prompt_ids(
        self, inner: ScoredChatCompletionRequest | ScoredCompletionRequest
    ) -> list[int] | ErrorResponse:
        """Token ids of the rendered prompt."""
        if isinstance(inner, ScoredChatCompletionRequest):
            found = await self.chat.render_chat_request(inner)
            inputs = found if isinstance(found, ErrorResponse) else found[1]
        else:
            inputs = await self.completion.render_completion_request(inner)
        if isinstance(inputs, ErrorResponse):
            return inputs
        return list(self.chat._extract_prompt_components(inputs[0]).token_ids or ())

    async def text_ids(self, text: str) -> list[int]:
        """Token ids of a completion."""
        limit = self.chat.model_config.max_model_len
        params = TokenizeParams(max_total_tokens=limit, add_special_tokens=False)
        try:
            found: Any = await self.chat.renderer.tokenize_prompt_async({"prompt": text}, params)
        except VLLMValidationError as error:  # a text that is not even tokenised
            message = f"the completion alone has more tokens than the model's {limit}"
            raise VLLMValidationError(message, parameter=COMPLETION_TOKENS) from error
        return list(found["prompt_token_ids"])

    async def _answer_ids(self, text: str, inner: ScoredChatCompletionRequest | ScoredCompletionRequest) -> list[int]:
        """Token ids of a completion, in a chat with the end token of the model's own answers."""
        ids = await self.text_ids(text)
        end = getattr(self.chat.renderer.tokenizer, "eos_token_id", None)
        return [*ids, end] if isinstance(inner, ScoredChatCompletionRequest) and end is not None else ids

    async def _positions(
        self,
        request_id: str,
        prompt: list[int],
        answer: list[int],
        inner: ScoredChatCompletionRequest | ScoredCompletionRequest,
        request: GivenTextRequest,
        adapter: LoRARequest | None,
    ) -> list[Any]:
        """Logprobs with statistics of every token of an answer, in the form that generation has."""
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=request.top_logprobs or 0)
        ids: Any = {"prompt_token_ids": [*prompt, *answer]}
        if inner.cache_salt is not None:
            ids["cache_salt"] = inner.cache_salt
        results = self.chat.engine_client.generate(
            ids, with_statistics(params, inner), request_id, lora_request=adapter, priority=inner.priority
        )
        positions: list[Any] = []
        with blame_parameter("prompt"):
            async for result in results:
                positions = list(result.prompt_logprobs or ())[len(prompt) :]
        return positions
