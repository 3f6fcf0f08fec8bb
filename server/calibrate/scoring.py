"""Scores labelled answers as the server would, with a vLLM engine in this process."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tqdm import tqdm

from model_impl.faults import refusal
from model_impl.override import override_class
from model_impl.wire import Membership, report_args
from server.calibrate.labels import Label
from server.calibrate.tokenised_label import TokenisedLabel
from server.calibrate.variant import Variant
from server.engine.settings import cpu_kv_cache_bytes, defaults, prepare_environment
from server.served.model import ServedModel
from server.uncertainty.calibration import CalibrationError
from server.uncertainty.score import ChoiceScore, EnsembleScore
from server.uncertainty.sentences import divided

if TYPE_CHECKING:
    from vllm import LLM, CompletionOutput, SamplingParams

    from server.engine.ensemble import ScoredAnswer

MAX_ANSWER_TOKENS = 256
"""Limit on a generated answer."""


@dataclass(frozen=True)
class ScoredLabel:
    score: ChoiceScore
    correct: bool
    finish_reason: str
    """As `Population` counts it."""
    further: Mapping[str, float]
    """Features from the ensemble, where one was requested."""


def score_labels(
    variant: Variant,
    labels: Sequence[TokenisedLabel],
    limit: int,
    members: int | None = None,
) -> list[ScoredLabel]:
    """For every label, of at most `limit` tokens: the score of its answer, whether it is correct, and the features from
    an ensemble of `members`, if it is requested.

    Given answers are scored without generating. A label about a sentence has the score of that sentence, with those of
    the same line in one request.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # vLLM warns on stdout, where the command reports
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    prepare_environment()
    from server.engine.constraints.stop_strings import stop_strings
    from server.engine.ensemble import ScoredAnswer

    adapter = variant.adapter()
    with opened_engine(variant.served, limit, eager=members is not None or variant.delta is not None) as llm:
        if adapter is not None and variant.delta is not None:
            llm.llm_engine.add_lora(adapter)
        tokenizer = llm.get_tokenizer()
        asked = list({label.label.line: label for label in labels}.values())
        inputs: Any = [{"prompt_token_ids": [*label.prompt, *label.answer]} for label in asked]
        stop = stop_strings(llm.model_config)
        params = [sampling_params(label, stop if label.label.is_chat else []) for label in asked]
        outputs = llm.generate(inputs, params, lora_request=adapter)
        texts = [
            ScoredAnswer(label.prompt, label.answer or output.outputs[0].token_ids, adapter)
            for label, output in zip(asked, outputs, strict=True)
        ]
        ensembles: Sequence[EnsembleScore | None] = (
            [None] * len(texts) if members is None else ensemble_scores(llm, texts, members)
        )
    found: dict[int, tuple[ChoiceScore, EnsembleScore | None, Any]] = {}
    for label, text, output, ensemble in zip(asked, texts, outputs, ensembles, strict=True):
        own = output.outputs[0]
        given = (output.prompt_logprobs or ())[len(text.prompt) :]
        positions: Any = given if label.answer else own.logprobs
        score = score_of(tokenizer, variant.stages, text.prompt, text.answer, positions or ())
        found[label.label.line] = score, ensemble, own
    return [scored_label(label.label, *found[label.label.line]) for label in labels]


def scored_label(
    label: Label, score: ChoiceScore, ensemble: EnsembleScore | None, own: CompletionOutput
) -> ScoredLabel:
    """The score of what the label is about; `own` is the model's own answer."""
    if label.sentence is not None and label.answer is not None:
        tokens = divided(score.scores, label.answer)[label.sentence].tokens
        score, ensemble = ChoiceScore.of(score.scores[tokens]), ensemble and ensemble.part(tokens)
    given_end = "stop" if label.is_chat else "length"
    ended = given_end if label.answer else own.finish_reason or "length"
    correct = label.is_correct(label.answer or own.text)
    return ScoredLabel(score, correct, ended, ensemble.features() if ensemble else {})


def ensemble_scores(llm: LLM, texts: Sequence[ScoredAnswer], members: int) -> list[EnsembleScore]:
    """The parameter-token ensemble's score of each answer, as `server.engine.ensemble` computes it."""
    from server.engine.ensemble import ensemble_name, member_request, positions_at_once

    most = positions_at_once(llm.llm_engine.vllm_config)
    rows: list[list[list[float]]] = [[] for _ in texts]
    for batch in tqdm(packed([len(text.answer) for text in texts], most), desc="Ensemble"):
        names = [ensemble_name() for _ in batch]
        requests = []
        for name, part in zip(names, batch, strict=True):
            text = texts[part.text]
            # The distribution of a token is that of the position before it.
            ids = [*text.prompt, *text.answer[: part.stop]][:-1]
            last = len(text.prompt) - 1
            own = [Membership(name, member, members, last, last + part.start) for member in range(members)]
            requests += [member_request(each, ids, None) for each in own]
        prompts, params = zip(*requests, strict=True)
        llm.generate(list(prompts), list(params), lora_request=texts[0].adapter, use_tqdm=False)
        for name, part in zip(names, batch, strict=True):
            found = llm.collective_rpc("take_mixture", args=(name,))
            rows[part.text] += next(values for values in found if values is not None)
    return [EnsembleScore(members, [row[0] for row in of], [row[1] for row in of], 0) for of in rows]


@dataclass(frozen=True)
class Part:
    """The tokens [start, stop) of one text's answer."""

    text: int
    start: int
    stop: int


def packed(lengths: Sequence[int], most: int) -> list[list[Part]]:
    """Batches of at most `most` tokens, which together cover answers of these lengths in order."""
    batches: list[list[Part]] = [[]]
    room = most
    for text, length in enumerate(lengths):
        start = 0
        while start < length:
            if room == 0:
                batches.append([])
                room = most
            stop = min(length, start + room)
            batches[-1].append(Part(text, start, stop))
            room -= stop - start
            start = stop
    return batches if batches[0] else []


def sampling_params(label: TokenisedLabel, stop: Sequence[str]) -> SamplingParams:
    """Greedy, with statistics of the given answer, which is part of the prompt, or of as many new tokens as fit, which
    end at `stop`."""
    from vllm import SamplingParams

    asked = report_args()
    if not label.answer:
        most = min(label.room, MAX_ANSWER_TOKENS)
        return SamplingParams(temperature=0, max_tokens=most, logprobs=0, stop=list(stop), extra_args=asked)
    # vLLM generates at least one token, which is ignored.
    return SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False, extra_args=asked)


@contextmanager
def opened_engine(served: ServedModel, limit: int, *, eager: bool = False) -> Iterator[LLM]:
    """A `vllm.LLM` with our worker and the settings of `serve`; its requests can name a stage.

    No request has more than `limit` tokens. `eager`: not compiled, as ensembles and deltas require.
    """
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    from server.engine import statistics as engine
    from server.engine.input_processor import VariantInput

    engine.install()
    cpu = current_platform.is_cpu()
    settings = defaults(served, cpu=cpu)
    names = ("worker_cls", "load_format", "dtype", "enforce_eager", "block_size", "language_model_only")
    options: dict[str, Any] = {name: settings[name] for name in names if name in settings}
    options["max_model_len"] = limit
    if eager:
        options["enforce_eager"] = True
    if cpu:
        flags = Namespace(**vars(EngineArgs(served.name, **options)))
        options["kv_cache_memory_bytes"] = cpu_kv_cache_bytes(flags, served)
    try:
        llm = LLM(served.name, **options)
    except (RuntimeError, ValueError) as error:
        raise CalibrationError(f"{served.name}: {refusal(error)}") from error
    override_class(llm.llm_engine.input_processor, VariantInput)
    cast(VariantInput, llm.llm_engine.input_processor).dropped = set()
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()


def score_of(
    tokenizer: Any, stages: Sequence[str], prompt: Sequence[int], token_ids: Iterable[int], positions: Sequence[Any]
) -> ChoiceScore:
    """The score of tokens after a prompt; the positions' logprobs carry what the engine reported of them."""
    from vllm import SamplingParams

    from server.engine.statistics import TokenReader, name_growth

    name_growth(positions, dict(enumerate(stages)))
    reader, score = TokenReader(tokenizer, prompt, SamplingParams()), ChoiceScore()
    for token_id, position in zip(token_ids, positions, strict=True):
        token = reader.read(token_id, position)
        if token is not None:
            score.add(token)
    return score
