"""The API process's half of token statistics: takes the engine's columns out of logprobs, and pairs them with texts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.logprobs import FlatLogprobs, Logprob
from vllm.sampling_params import SamplingParams
from vllm.tokenizers.detokenizer_utils import convert_ids_list_to_tokens
from vllm.v1.engine import EngineCoreRequest, logprobs, output_processor
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from model_impl.override import override_class
from model_impl.wire import find_columns, is_unshown
from server.gate.context import CONTEXT
from server.uncertainty.tokens import TokenScore


@dataclass
class ScoredLogprob(Logprob):
    """The chosen token's logprob together with what the engine's columns say of it, see `model_impl.wire`.

    The statistics have defaults only because the base's fields have.
    """

    entropy: float = math.nan
    variance: float = math.nan
    margin: float = math.nan
    epistemic: float | None = None
    """None where the engine reports none."""
    growth: dict[str, float] | None = None
    """Growth stage -> nats; filled in by `name_growth`, since the engine knows no names."""

    def __post_init__(self) -> None:
        # Growth by place, as the engine reports it. No field: answers must not show it.
        self.places: list[float] | None = None


class StatisticsProcessor(LogprobsProcessor):
    """Splits the statistics columns off and hangs them on each position's chosen token."""

    @classmethod
    def from_new_request(cls, tokenizer: Any, request: EngineCoreRequest) -> LogprobsProcessor:
        made = super().from_new_request(tokenizer, request)
        params = request.sampling_params
        if params and is_unshown(params.extra_args) and isinstance(made.logprobs, list):
            made.logprobs = Unshown()  # type: ignore[assignment]
        return made

    def _update_sample_logprobs(self, logprobs_lists: LogprobsLists) -> None:
        if isinstance(self.logprobs, Unshown):
            assert self.cumulative_logprob is not None
            self.cumulative_logprob += self.logprobs.add(logprobs_lists)
            return
        plain, columns = split_columns(logprobs_lists)
        super()._update_sample_logprobs(plain)
        self._attach(self.logprobs, columns)

    def _update_prompt_logprobs(self, prompt_logprobs_tensors: LogprobsTensors) -> None:
        plain, columns = split_columns(prompt_logprobs_tensors)
        super()._update_prompt_logprobs(plain)
        self._attach(self.prompt_logprobs, columns)

    @staticmethod
    def _attach(positions: Any, columns: list[list[float]] | None) -> None:
        if columns is None or isinstance(positions, FlatLogprobs):
            return  # the flat container of vLLM's offline API has no place for them
        new = positions[len(positions) - len(columns) :]
        for position, values in zip(new, columns, strict=True):
            token_id, chosen = next(iter(position.items()))  # the chosen token comes first
            position[token_id] = scored_or_plain(chosen.logprob, chosen.rank, values, chosen.decoded_token)


class Unshown:
    """In the place of vLLM's list of positions, the chosen tokens of a request whose client sees no logprobs; those
    that have no statistics as a plain `Logprob`.

    The statistics come in batches (`model_impl.engine.scheduler`), so of a stream the newest are not those of the
    newest tokens: what vLLM takes by the number of these is whatever has come since.
    """

    def __init__(self) -> None:
        self.entries: list[Logprob] = []
        self.taken = 0

    def add(self, logprobs_lists: LogprobsLists) -> float:
        """The next positions; returns the sum of their logprobs."""
        ids, values, ranks, _ = logprobs_lists
        start = find_columns(ids)
        total = 0.0
        for row, rank in zip(values.tolist(), ranks.tolist(), strict=True):
            logprob = row[0]
            self.entries.append(
                Logprob(logprob, rank) if start is None else scored_or_plain(logprob, rank, row[start:])
            )
            total += logprob
        return total

    def __getitem__(self, newest: slice) -> list[Logprob]:
        new = self.entries[self.taken :]
        self.taken = len(self.entries)
        return new

    def __iter__(self) -> Iterator[Logprob]:
        return iter(self.entries)


def scored_or_plain(logprob: float, rank: int | None, columns: list[float], text: str | None = None) -> Logprob:
    """The chosen token of a position with what its columns say of it; a plain `Logprob` where they say nothing."""
    if not math.isfinite(sum(columns)):  # in float64, where a sum of float32 numbers does not overflow
        return Logprob(logprob, rank, text)  # logits that overflowed: JSON has no NaN, and there is nothing to report
    entropy, variance, margin, *reported = columns
    entry = ScoredLogprob(logprob, rank, text, entropy, variance, margin, reported[0] if reported else None)
    entry.places = reported[1:] or None
    return entry


def split_columns(logprobs: Any) -> tuple[Any, list[list[float]] | None]:
    """Logprobs lists or tensors without their extra columns, and the columns by row (None where there are none)."""
    ids, values = logprobs.logprob_token_ids, logprobs.logprobs
    if (start := find_columns(ids)) is None:
        return logprobs, None
    plain = logprobs._replace(logprob_token_ids=ids[:, :start], logprobs=values[:, :start])
    return plain, values[:, start:].tolist()


class TokenTexts(dict[int, str]):
    """Token id -> its text, as logprobs show it; each is decoded once."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def __missing__(self, token_id: int) -> str:
        (self[token_id],) = convert_ids_list_to_tokens(self.tokenizer, [token_id])
        return self[token_id]


@lru_cache(maxsize=8)
def token_texts(tokenizer: Any) -> TokenTexts:
    return TokenTexts(tokenizer)


def known_texts(tokenizer: Any, token_ids: list[int]) -> list[str]:
    """As vLLM's function, whose decoding takes most of the time of logprobs: 10 us for each alternative."""
    return [*map(token_texts(tokenizer).__getitem__, token_ids)]


def install() -> None:
    """Make every engine client of this process deliver `ScoredLogprob`s, and decode no token twice for logprobs."""
    logprobs.convert_ids_list_to_tokens = known_texts
    output_processor.LogprobsProcessor = StatisticsProcessor  # type: ignore[misc]


class WatchedOutputs(OutputProcessor):
    """vLLM's list of running sequences. It tells when the engine last made a token, and the ticket of a request that
    its sequences have come here, where vLLM counts them."""

    last_output: float
    """Monotonic seconds."""

    def add_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().add_request(request, *args, **kwargs)
        if (ticket := CONTEXT.get().ticket) is not None:
            ticket.reached_engine(len(request.prompt_token_ids or ()))

    def process_outputs(self, engine_core_outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        if engine_core_outputs:
            self.last_output = time.monotonic()
        return super().process_outputs(engine_core_outputs, *args, **kwargs)


def watched(client: EngineClient) -> WatchedOutputs:
    """The engine client's list of running sequences, made to watch."""
    outputs: Any = client.output_processor  # type: ignore[attr-defined]
    if not isinstance(outputs, WatchedOutputs):
        override_class(outputs, WatchedOutputs)
        outputs.last_output = 0.0
    watching: WatchedOutputs = outputs
    return watching


async def end_all(client: EngineClient, error: Exception) -> int:
    """End every running sequence: who waits for it gets `error`, and the engine drops it. Returns how many there were.

    Unlike vLLM's own abort, after which a stream looks as if it had been completed.
    """
    outputs = watched(client)
    running = list(outputs.request_states)
    outputs.propagate_error(error)
    await asyncio.sleep(0)
    await client.engine_core.abort_requests_async(running)  # type: ignore[attr-defined]
    return len(running)


def scored(position: Mapping[int, Logprob] | Logprob | None) -> ScoredLogprob | None:
    """The scored entry of one generated or prompt position; None where no statistics came along.

    Under beam search it need not be the token that the beam chose, but it describes the same distribution.
    """
    if isinstance(position, Mapping):
        return next((entry for entry in position.values() if isinstance(entry, ScoredLogprob)), None)
    return position if isinstance(position, ScoredLogprob) else None


def name_growth(positions: Iterable[Mapping[int, Logprob] | Logprob | None], stages: Mapping[int, str]) -> None:
    """Fill in the positions' growth, by the growth stage at each place. Empty for a model that has never grown."""
    if not stages:
        return
    for entry in filter(None, map(scored, positions)):
        if (places := entry.places) is not None:
            entry.growth = {stage: places[place] for place, stage in stages.items()}


class TokenReader:
    """Reads the tokens of one choice in order: their statistics, and the text that each of them adds.

    The text is that of vLLM's own incremental detokenizer, a second one, since vLLM does not tell what its first made
    of which token. Of `params` it needs only how special tokens and stop tokens are shown; `echoed` stands before it.
    Unless `every` token's text is wanted, it is read up to the first letter or digit, from where on nobody asks for it.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompt_token_ids: Sequence[int] | None,
        params: SamplingParams,
        echoed: str = "",
        *,
        every: bool = True,
    ) -> None:
        request: Any = SimpleNamespace(
            request_id="", sampling_params=params, prompt_token_ids=prompt_token_ids, prompt_embeds=None
        )
        self.detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, request)
        self.special = special_ids(tokenizer)
        self.text = echoed
        self.every, self.reading = every, True

    def read(
        self,
        token_id: int,
        position: Mapping[int, Logprob] | Logprob | None,
        *,
        stopped: bool = False,
    ) -> TokenScore | None:
        """None where the position has no statistics. `stopped`: the token ended the answer, as a stop token does."""
        text, start, special = "", len(self.text), False
        if self.reading:
            self.detokenizer.update([token_id], stopped)
            text = self.detokenizer.get_next_output_text(finished=False, delta=True)
            self.text += text
            special = token_id in self.special
            self.reading = self.every or special or not any(map(str.isalnum, text))
        entry = scored(position)
        if entry is None or position is None:
            return None
        chosen = position[token_id] if isinstance(position, Mapping) else position
        return TokenScore(
            chosen.logprob,
            entry.entropy,
            entry.variance,
            entry.margin,
            text,
            start,
            special,
            entry.epistemic,
            entry.growth,
        )


@lru_cache(maxsize=8)  # a large vocabulary's takes milliseconds, and a server has one tokenizer
def special_ids(tokenizer: Any) -> frozenset[int]:
    """Token ids that are no text. Empty without a tokenizer."""
    if tokenizer is None:
        return frozenset()
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()  # Mistral's own tokenizer lists none
    return frozenset(tokenizer.all_special_ids) | {token_id for token_id, token in added if token.special}
