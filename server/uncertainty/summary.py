"""The summary of a choice as clients get it, `choices[].uncertainty`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from server.uncertainty.reason import MEANINGS, NoRisk


class Span(BaseModel):
    """Words of an answer to doubt, or that the model was undecided about."""

    start: int = Field(description="Where they start in the text, in characters (Unicode code points).")
    end: int = Field(description="Where they end: `text` is the characters from start up to end.")
    text: str
    kind: Literal["doubted", "undecided"] = Field(
        description="`doubted` where a calibration judges the words, and their risk is above 0.1. `undecided` where "
        "none can: the model was undecided about them, which need not mean that they are wrong."
    )
    risk: float | None = Field(
        description="What the calibration says of these tokens alone, and never above the answer's risk, as a part "
        "cannot be likelier wrong than the whole; null without a calibration that can judge a part: one that reads the "
        "ensemble cannot."
    )
    reason: str = Field(description="What the model was undecided about, in plain words.")


class SentenceUncertainty(BaseModel):
    """A sentence of an answer. The sentences of an answer partition its text."""

    start: int = Field(description="Where it starts in the text, in characters, as of spans.")
    end: int = Field(description="Where it ends, the white space behind it included.")
    text: str
    risk: float | None = Field(
        description="Probability that the sentence is wrong, by a calibration that was fitted on sentences. One that "
        "was fitted on whole answers is applied to the sentence's tokens alone, and gives at most the answer's risk. "
        "Null where the answer has none."
    )
    mean_entropy: float | None = Field(description="Over the sentence's tokens, as in the summary of the answer.")
    max_entropy: float | None
    mean_variance: float | None
    min_logprob: float | None
    mean_epistemic: float | None = Field(default=None, description="By the answer's `estimator`.")
    max_epistemic: float | None = None
    tokens: int
    spans: list[Span] = Field(description="Its words to doubt, or that the model was undecided about.")


class Uncertainty(BaseModel):
    """How sure the model was of one choice: aggregates over its tokens; null where it has none."""

    risk: float | None = Field(
        default=None,
        description="Probability that the answer is wrong; null if `reason` says why it has none. By a calibration "
        "that was fitted on sentences it is that of the worst sentence, the least that the answer's can be.",
    )
    reason: NoRisk | None = Field(
        default=None,
        description="Why there is no risk; null where there is one. "
        + "; ".join(f"`{name}`: {meaning}" for name, meaning in MEANINGS.items())
        + ".",
    )
    calibrated: bool = Field(default=False, description="Whether risk comes from a calibration of this checkpoint.")
    calibration: str | None = Field(default=None, description="Name of the calibration in use.")
    abstain: bool | None = Field(
        default=None,
        description="Whether risk is above the request's `abstain_above`, or the limit of `on_doubt`; null without.",
    )
    unit: Literal["nat"] = "nat"
    mean_entropy: float | None = Field(description="Mean token entropy, nats.")
    max_entropy: float | None = Field(description="Highest token entropy, nats.")
    first_token_entropy: float | None = Field(
        description="Entropy of the first token with a letter or digit (of the first token if none has), nats."
    )
    worst_window_entropy: float | None = Field(
        description="Highest mean entropy of 8 tokens in a row (of all tokens, if they are fewer), nats."
    )
    mean_variance: float | None = Field(description="Mean token variance Var_p(-ln p), nats^2.")
    min_logprob: float | None = Field(description="Lowest log-probability among the chosen tokens.")
    standardised_surprisal: float | None = Field(
        description="sum(-ln p - entropy) / sqrt(sum variance): the answer's surprise in standard deviations."
    )
    tokens: int = Field(description="Number of tokens summarised.")
    growth: dict[str, float] | None = Field(
        default=None,
        description="What each growth stage adds to a token's logit above its rivals', nats, mean over tokens; null "
        "for a checkpoint that never grew.",
    )
    ensemble: int | None = Field(default=None, description="Members of the ensemble that were asked; null for none.")
    ensemble_tokens: int | None = Field(
        default=None, description="Tokens that its members ran through the model: what it cost."
    )
    estimator: Literal["closed-form", "ensemble"] | None = Field(
        default=None,
        description="What epistemic uncertainty is estimated by: the closed form of one pass, or the members of the "
        "ensemble where one was asked; their numbers have different scales. null where the engine reports none.",
    )
    mean_epistemic: float | None = Field(
        default=None,
        description="Mean over the tokens of the epistemic uncertainty, nats: the mutual information of the token and "
        "the parameter tokens that are masked.",
    )
    max_epistemic: float | None = Field(default=None, description="Highest epistemic uncertainty of a token, nats.")
    first_token_epistemic: float | None = Field(
        default=None, description="That of the first token with a letter or digit, nats."
    )
    mean_aleatoric: float | None = Field(
        default=None, description="Mean over the tokens of the members' entropy, nats."
    )
    epistemic: list[float | None] | None = Field(
        default=None,
        description="Of each token, what the members disagree about, nats: it hangs on few parameter tokens.",
    )
    aleatoric: list[float | None] | None = Field(
        default=None, description="Of each token, the rest of the members' mean distribution's entropy, nats."
    )
    spans: list[Span] | None = Field(
        default=None,
        description="The words to doubt, or those that the model was undecided about, in order, if "
        "`uncertainty.spans` asked for them. They lie in the generated text: the message's content, or the text before "
        "tool calls and reasoning were taken out of it; for completions the choice's `text`. What `echo` puts in front "
        "is a part of it.",
    )
    sentences: list[SentenceUncertainty] | None = Field(
        default=None, description="Each sentence, in order, if `uncertainty.sentences` asked for them. As for `spans`."
    )


class WithoutNulls(BaseModel):
    """Mixed into a model whose null fields, and those of the objects in it, the client does not want."""

    @model_serializer(mode="wrap")
    def _without_nulls(self, serialised: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return dict(_without_nulls(serialised(self)))


def _without_nulls(value: Any) -> Any:
    """Lists keep theirs, which stand for a token each."""
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


class BriefUncertainty(WithoutNulls, Uncertainty):
    pass
