"""The scores of one request's choices, made while the engine's outputs pass."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionLogProbsContent, ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

from server import metrics
from server.api.policy import DoubtedAnswer, as_event, uncalibrated
from server.engine.ensemble import ScoredAnswer
from server.engine.statistics import TokenReader, name_growth
from server.gate.context import CONTEXT
from server.requests.answer_kind import kind_of
from server.requests.schemas import UncertaintyOptions, recast
from server.uncertainty.calibration import Calibration
from server.uncertainty.policy import DoubtPolicy
from server.uncertainty.reason import AnswerKind, NoRisk, unlike
from server.uncertainty.score import ChoiceScore, EnsembleScore
from server.uncertainty.summary import BriefUncertainty, Uncertainty

READ_AT_ONCE = 256
"""Positions that are read together, in about a millisecond."""


@dataclass
class RunningChoice:
    """A choice that is being generated."""

    reader: TokenReader
    prompt: Sequence[int]
    adapter: LoRARequest | None
    score: ChoiceScore = field(default_factory=ChoiceScore)
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    unread: list[Any] = field(default_factory=list)
    """Positions that the score lacks; they may lag behind the tokens."""
    stopped: bool = False
    """Whether the last token ended the answer without being part of it."""
    finish_reason: str | None = None
    says: bool = False
    """Whether the message that the client gets has text, which tool calls are taken out of."""
    calls: bool = False
    """Whether it has tool calls."""
    doubted_risk: float | None = None
    """The risk because of which the client does not get it; None for one that is delivered."""
    ensemble: EnsembleScore | None = None
    """The ensemble that the response shows."""
    judged_by: EnsembleScore | None = None
    """The ensemble that the calibration reads. It was fitted for one number of members."""
    segments: Mapping[int, str] = field(default_factory=dict)
    """Place -> growth stage, as `ScoredModels.segments`."""
    read: int = 0
    """Number of positions that the score has."""
    observed: int = 0
    """Number of tokens that the metrics have."""

    def spans_text(self) -> str | None:
        """The text of the choice if the reader's offsets are right in it, else None. They are wrong under beam search
        with tokenizers that put blanks between tokens, and in given texts that the tokenizer does not reproduce."""
        return self.text if self.reader.text.startswith(self.text) else None


class RequestScores:
    """Takes the engine's outputs of one request, and makes the summaries of its choices."""

    def __init__(
        self,
        request: ChatCompletionRequest | CompletionRequest,
        model_name: str,
        models: Any,
        tokenizer: Any,
        *,
        generated: bool = True,
        policy: DoubtPolicy | None = None,
    ) -> None:
        """`generated`: whether the model wrote the tokens, so that the metrics count them. `policy`: what happens to
        doubted choices."""
        self.generated, self.policy = generated, policy or DoubtPolicy()
        options = getattr(request, "uncertainty", False)
        self.wanted = options is not False
        self.options = options if isinstance(options, UncertaintyOptions) else UncertaintyOptions()
        self.model_name, self.models, self.tokenizer = model_name, models, tokenizer
        self.request = request
        self.cache_salt, self.priority = request.cache_salt, request.priority
        self.kind = kind_of(request)
        self.may_call = bool(getattr(request, "tools", None))
        self.calibration: Calibration | None = None
        self.choices: dict[int, RunningChoice] = {}
        self.finished: set[int] = set()
        """Complete choices whose summary has not been sent."""

    @cached_property
    def shown(self) -> SamplingParams:
        """The parameters that say how texts show special and stop tokens."""
        return SamplingParams(
            skip_special_tokens=self.request.skip_special_tokens,
            spaces_between_special_tokens=self.request.spaces_between_special_tokens,
            include_stop_str_in_output=self.request.include_stop_str_in_output,
        )

    @property
    def reads_text(self) -> bool:
        """Whether the summaries need the text of every token."""
        by_sentence = self.calibration is not None and self.calibration.judges_sentences
        return self.options.spans or self.options.sentences or by_sentence

    def add(self, result: RequestOutput, first_index: int = 0, echoed: str = "") -> None:
        """Take new tokens of the choices from `first_index` on, whose texts begin with `echoed`."""
        for output in result.outputs:
            index = first_index + output.index
            choice = self.choices.get(index)
            if choice is None:
                choice = self.choices[index] = self._begin(result, echoed)
            self._add(choice, output)
            if output.finish_reason is not None:
                choice.finish_reason = output.finish_reason
                self.finished.add(index)
                self._observe(choice)
        if result.prompt_logprobs:
            name_growth(result.prompt_logprobs, self.models.segments(result.lora_request))

    def _begin(self, result: RequestOutput, echoed: str) -> RunningChoice:
        adapter, prompt = result.lora_request, result.prompt_token_ids or ()
        self.calibration = self.models.calibration(adapter)
        # A given text was tokenised by itself, so the prompt does not decide about a blank before its first word.
        before = prompt if self.generated else ()
        reader = TokenReader(self.tokenizer, before, self.shown, echoed, every=self.reads_text)
        return RunningChoice(reader, prompt, adapter, text=echoed, segments=self.models.segments(adapter))

    def _add(self, choice: RunningChoice, output: CompletionOutput) -> None:
        """Take new tokens and positions of a choice. They are read together later, which costs a stream less."""
        choice.text += output.text
        choice.token_ids += output.token_ids
        new = list(output.logprobs or ())
        name_growth(new, choice.segments)
        choice.unread += new
        # A stop token ends the answer without being part of it; a stop string is cut out of the text.
        choice.stopped = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
        if output.finish_reason is not None or len(choice.unread) >= READ_AT_ONCE:
            self._read(choice)

    def _read(self, choice: RunningChoice) -> None:
        """Give the score the positions that it lacks."""
        last = len(choice.token_ids) - 1 if choice.stopped else None
        new = zip(choice.token_ids[choice.read :], choice.unread, strict=False)
        for i, (token_id, position) in enumerate(new, choice.read):
            token = choice.reader.read(token_id, position, stopped=i == last)
            if token:
                choice.score.add(token)
        choice.read += len(choice.unread)
        choice.unread = []

    def _observe(self, choice: RunningChoice) -> None:
        """Give the metrics the tokens of a choice together, which costs a stream less than one by one."""
        if self.generated:
            metrics.observe_tokens(self.model_name, choice.score.scores[choice.observed :])
            choice.observed = len(choice.score.scores)

    def close(self) -> None:
        """Give the metrics the rest of answers that were cut off."""
        for choice in self.choices.values():
            self._read(choice)
            self._observe(choice)

    async def rescore(self, index: int) -> None:
        """Have the ensemble score the complete choice `index`, if the request or the calibration needs it."""
        choice = self.choices[index]
        answer = ScoredAnswer(choice.prompt, choice.token_ids, choice.adapter, self.cache_salt, self.priority)
        own = self.calibration.members if self.calibration and not self.models.ensemble.unavailable else None
        if shown := self.options.ensemble or own:
            choice.ensemble = await self.models.ensemble.score(answer, shown)
        choice.judged_by = choice.ensemble
        if own and own != shown:
            choice.judged_by = await self.models.ensemble.score(answer, own)

    async def rescore_all(self) -> None:
        """Rescore one choice after the other, so that a request with many does not take every turn."""
        for index in self.choices:
            await self.rescore(index)

    def label(self, index: int, entries: Sequence[ChatCompletionLogProbsContent]) -> None:
        """Give each token of choice `index` its scores by the ensemble."""
        if (found := self.choices[index].ensemble) is not None:
            for entry, epistemic, aleatoric in zip(entries, found.epistemic, found.aleatoric, strict=True):
                setattr(entry, "epistemic", epistemic)  # noqa: B010 - extra fields, which the type lacks
                setattr(entry, "aleatoric", aleatoric)  # noqa: B010

    def summary(self, index: int) -> Uncertainty:
        """The summary of the complete choice `index`, which also goes to the metrics and the access log."""
        choice = self.choices[index]
        limit = self.policy.above if self.policy.withholds else self.options.abstain_above
        text = choice.spans_text() if self.reads_text else None
        objection = self._objection(choice)
        summary = choice.score.summary(
            self.calibration,
            limit,
            text,
            choice.ensemble,
            choice.judged_by,
            objection,
            spans=self.options.spans,
            sentences=self.options.sentences,
        )
        if self.generated and self.calibration is not None and summary.risk is not None:
            own = self.calibration.abstain["above"] if self.calibration.abstain else None
            metrics.observe_answer(self.model_name, summary.risk, own if limit is None else limit)
        if self.policy.withholds and summary.abstain:
            choice.doubted_risk = summary.risk
            summary.spans = summary.sentences = None  # they quote the answer
        if (record := CONTEXT.get().record) is not None:
            record.uncertainty[index] = summary
        return summary if self.options.include_null else recast(BriefUncertainty, summary)

    def is_doubted(self, index: int) -> bool:
        """Whether the client does not get the choice `index`, of which there is a summary."""
        return self.choices[index].doubted_risk is not None

    def refusal(self) -> DoubtedAnswer | None:
        """The error in the place of all choices, if each is doubted and the policy is to refuse. Counts the doubted."""
        if not self.policy.withholds:
            return None
        doubted = [choice.doubted_risk for choice in self.choices.values() if choice.doubted_risk is not None]
        refused = self.policy.on_doubt == "refuse" and len(doubted) == len(self.choices)
        metrics.WITHHELD_ANSWERS.labels(self.model_name, "refused" if refused else "replaced").inc(len(doubted))
        return DoubtedAnswer(min(doubted), self.policy.above or 0.0) if refused else None

    def note_message(self, index: int, message: Mapping[str, Any]) -> None:
        """Note what a message, or a part of one in a stream, gives the client."""
        if (choice := self.choices.get(index)) is not None:  # it has no token yet
            choice.says = choice.says or bool((message.get("content") or "").strip())
            choice.calls = choice.calls or bool(message.get("tool_calls"))

    def _objection(self, choice: RunningChoice) -> NoRisk | None:
        """Why no calibration holds for the complete choice; None if one does."""
        if self.calibration is None:
            return uncalibrated(self.models)
        if not choice.token_ids:
            return "empty"
        if len(choice.score.scores) < len(choice.token_ids):  # such tokens come without statistics
            return "not_finite"
        if not self.generated:
            return unlike(self.calibration.population, AnswerKind(self.kind.form))
        calls_only = choice.calls and not choice.says
        kind = self.kind._replace(finish_reason=choice.finish_reason, calls_only=calls_only)
        return unlike(self.calibration.population, kind)

    async def complete(self, chunk: str) -> str:
        """A server-sent event of a JSON object, with the summaries of the choices that it finishes."""
        event = json.loads(chunk.removeprefix("data: "))
        for choice in event.get("choices", ()):
            self.note_message(choice["index"], choice.get("delta") or {})
            if choice.get("finish_reason") is not None and choice["index"] in self.finished:
                self.finished.discard(choice["index"])
                await self.rescore(choice["index"])
                choice["uncertainty"] = self.summary(choice["index"]).model_dump()
        return as_event(event)
