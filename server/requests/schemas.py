"""Additions to the requests and responses of vLLM's OpenAI protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializeAsAny,
    StrictBool,
    Tag,
    model_validator,
)
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionLogProbsContent,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
)
from vllm.entrypoints.openai.completion.protocol import (
    CompletionLogProbs,
    CompletionRequest,
    CompletionResponse,
    CompletionResponseChoice,
    CompletionResponseStreamChoice,
    CompletionStreamResponse,
)
from vllm.logprobs import Logprob
from vllm.sampling_params import SamplingParams
from vllm.utils import random_uuid

from model_impl.reference.ensemble import MAX_MEMBERS
from model_impl.wire import report_args
from server.requests.limits import RequestLimits, blame_parameter, check_prompt, refuse_templates
from server.requests.messages import Messages
from server.requests.request_ids import RequestId
from server.requests.unsupported import refuse_unsupported
from server.uncertainty.policy import OnDoubt
from server.uncertainty.summary import Uncertainty, WithoutNulls

PromptLogprobs = list[dict[int, SerializeAsAny[Logprob]] | None]
"""vLLM's prompt_logprobs, with our statistics in the prompt tokens' entries."""


class UncertaintyOptions(BaseModel):
    """The object form of the request field `uncertainty`."""

    model_config = ConfigDict(extra="forbid")

    tokens: StrictBool = Field(
        default=False, description="Return entropy, variance, rank and margin of every token, as `logprobs` would."
    )
    spans: StrictBool = Field(
        default=False, description="Return the words to doubt, with the reason, as `uncertainty.spans`."
    )
    sentences: StrictBool = Field(
        default=False,
        description="Return every sentence with its own uncertainty and risk, as `uncertainty.sentences`.",
    )
    include_null: StrictBool = Field(
        default=True,
        description="Whether `uncertainty` has all fields in every answer; false leaves those that are null out.",
    )
    ensemble: int | None = Field(
        default=None,
        strict=True,
        ge=2,
        le=MAX_MEMBERS,
        description="Score the finished answer again under so many members of the parameter-token ensemble, and return "
        "the epistemic and the aleatoric part of every token's entropy. Costs about as many prefills of prompt and "
        "answer; in a stream it comes with the last chunk.",
    )
    abstain_above: float | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=1,
        description="Mark choices whose risk is higher by `uncertainty.abstain`; `on_doubt` may withhold them.",
    )
    on_doubt: OnDoubt | None = Field(
        default=None,
        description="What happens to choices with a risk above `abstain_above`, or without one above the server's or "
        "the calibration's limit. `flag`: they are returned. `replace`: the server's text takes their place, with "
        "`finish_reason` `content_filter`. `refuse`: an error does, if all choices are such; otherwise they are "
        "replaced. In a stream both hold a choice back until it is complete. The default is the server's --on-doubt.",
    )


def _kind_of_uncertainty(value: Any) -> str | None:
    """The tag of the union's member, with a space, so that no option has its name."""
    if isinstance(value, dict | UncertaintyOptions):
        return "options object"
    return "plain flag" if isinstance(value, bool | None) else None


UncertaintyField = Annotated[
    Annotated[StrictBool, BeforeValidator(lambda value: value is None or value), Tag("plain flag")]
    | Annotated[UncertaintyOptions, Tag("options object")],
    Discriminator(
        _kind_of_uncertainty,
        custom_error_type="uncertainty_type",
        custom_error_message="Input should be true, false or an object",
    ),
    Field(description="Whether to return how sure the model was: true adds a summary to every choice, false none."),
]


def _wants_tokens(uncertainty: bool | UncertaintyOptions) -> bool:
    return isinstance(uncertainty, UncertaintyOptions) and uncertainty.tokens


def with_statistics(
    params: SamplingParams, request: ScoredChatCompletionRequest | ScoredCompletionRequest
) -> SamplingParams:
    """Statistics come with the engine's logprobs, so at least the chosen token's are requested."""
    if request.uncertainty is False:
        return params
    unshown = params.logprobs is None and not params.logprob_token_ids
    if unshown:
        params.logprobs = 0
    params.extra_args = (params.extra_args or {}) | report_args(unshown=unshown)
    return params


class ScoredChatCompletionRequest(RequestLimits, ChatCompletionRequest):  # type: ignore[misc]  # narrower fields
    messages: Messages  # type: ignore[assignment]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    uncertainty: UncertaintyField = True
    request_id: RequestId = Field(default_factory=random_uuid)

    @model_validator(mode="before")
    @classmethod
    def _is_supported(cls, body: Any) -> Any:
        return refuse_unsupported(body)

    @model_validator(mode="after")
    def _tokens_imply_logprobs(self) -> ScoredChatCompletionRequest:
        if _wants_tokens(self.uncertainty):
            self.logprobs = True
        return self

    def to_sampling_params(self, *args: Any, **kwargs: Any) -> SamplingParams:
        with blame_parameter(known=type(self).model_fields):
            return with_statistics(super().to_sampling_params(*args, **kwargs), self)


class ScoredCompletionRequest(RequestLimits, CompletionRequest):  # type: ignore[misc]  # likewise, and `n` may be null
    uncertainty: UncertaintyField = True
    request_id: RequestId = Field(default_factory=random_uuid)

    @model_validator(mode="before")
    @classmethod
    def _has_a_prompt(cls, body: Any) -> Any:
        if isinstance(body, Mapping):
            refuse_templates(body)  # of which one would be a prompt to vLLM
            check_prompt(body.get("prompt"))
        return body

    @model_validator(mode="after")
    def _tokens_imply_logprobs(self) -> ScoredCompletionRequest:
        if _wants_tokens(self.uncertainty) and self.logprobs is None:
            self.logprobs = 0
        return self

    def to_sampling_params(self, *args: Any, **kwargs: Any) -> SamplingParams:
        with blame_parameter(known=type(self).model_fields):
            return with_statistics(super().to_sampling_params(*args, **kwargs), self)


class ScoredToken(ChatCompletionLogProbsContent):
    entropy: float | None = Field(default=None, description="-sum p ln p over the whole vocabulary, nats.")
    variance: float | None = Field(default=None, description="Var_p(-ln p) over the whole vocabulary, nats^2.")
    rank: int | None = Field(default=None, description="Rank of the token in its distribution, from 1.")
    margin: float | None = Field(default=None, description="Probability of the most likely token minus the second's.")
    epistemic: float | None = Field(
        default=None,
        description="How far the distribution hangs on single parameter tokens, nats: the closed form, or the "
        "ensemble's where one was asked and this is no stream.",
    )
    growth: dict[str, float] | None = Field(
        default=None,
        description="What each growth stage adds to the token's logit above its rivals', nats; below 0 where it speaks "
        "against the token.",
    )
    aleatoric: float | None = Field(default=None, description="The entropy that the members have on average, nats.")


class ScoredChatLogprobs(ChatCompletionLogProbs):
    content: list[ScoredToken] | None = None  # type: ignore[assignment]
    refusal: None = Field(default=None, description="Always null; OpenAI's schema requires it.")


class BriefChatLogprobs(WithoutNulls, ScoredChatLogprobs):
    pass


class ScoredCompletionLogprobs(CompletionLogProbs):
    """The additions are parallel to `token_logprobs`; null at the first prompt token under `echo`."""

    entropy: list[float | None] | None = None
    variance: list[float | None] | None = None
    rank: list[int | None] | None = None
    margin: list[float | None] | None = None
    growth: list[dict[str, float] | None] | None = None
    epistemic: list[float | None] | None = None
    aleatoric: list[float | None] | None = None


class ScoredChatChoice(ChatCompletionResponseChoice):
    logprobs: SerializeAsAny[ScoredChatLogprobs] | None = None
    uncertainty: SerializeAsAny[Uncertainty] | None = None


class ScoredChatCompletionResponse(ChatCompletionResponse):
    choices: list[ScoredChatChoice]  # type: ignore[assignment]
    prompt_logprobs: PromptLogprobs | None = None


class ScoredCompletionChoice(CompletionResponseChoice):
    logprobs: SerializeAsAny[ScoredCompletionLogprobs] | None = None
    uncertainty: SerializeAsAny[Uncertainty] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class ScoredCompletionResponse(CompletionResponse):
    choices: list[ScoredCompletionChoice]  # type: ignore[assignment]


class ScoredChatStreamChoice(ChatCompletionResponseStreamChoice):
    logprobs: ScoredChatLogprobs | None = None
    uncertainty: Uncertainty | None = Field(default=None, description="In the chunk that carries finish_reason.")


class ScoredChatCompletionChunk(ChatCompletionStreamResponse):
    choices: list[ScoredChatStreamChoice]  # type: ignore[assignment]


class ScoredCompletionStreamChoice(CompletionResponseStreamChoice):
    logprobs: ScoredCompletionLogprobs | None = None
    uncertainty: Uncertainty | None = Field(default=None, description="In the chunk that carries finish_reason.")


class ScoredCompletionChunk(CompletionStreamResponse):
    choices: list[ScoredCompletionStreamChoice]  # type: ignore[assignment]


Model = TypeVar("Model", bound=BaseModel)


def recast(model: type[Model], source: BaseModel, **changes: Any) -> Model:
    """`source` as an instance of a subclass of its class, without validating again."""
    return model.model_construct(_fields_set=source.model_fields_set | changes.keys(), **{**dict(source), **changes})
