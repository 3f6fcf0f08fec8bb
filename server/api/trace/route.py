"""`POST /v1/trace`: the parameter tokens that made a position's output, and training texts that fire the same ones.

The reference model computes it in float32 on the CPU, in the API process beside the engine: for inspection, not for
load. docs/trace.md explains the numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel, Field, StrictInt, StrictStr
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import validate_json_request, with_cancellation
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest

from model_impl.reference.contributions import at_position, places
from model_impl.reference.model import ReferenceTokenformer, load_reference
from model_impl.texts import Text, TextTokenizer
from server.api.given_text import GivenText, PromptRequest
from server.api.trace.index import KEPT, CorpusIndex
from server.engine.variants import VariantModels
from server.gate.errors import COMPLETION_TOKENS
from server.served.model import ServedModel

router = APIRouter()


class TraceRequest(PromptRequest):
    completion: StrictStr = Field(default="", description="What follows the prompt; the position may lie in it.")
    position: StrictInt | None = Field(
        default=None, description="Index of a token of prompt and completion; negative from the end. Default: the last."
    )
    top: StrictInt = Field(default=20, ge=1, le=1000, description="Parameter tokens to return.")
    texts: StrictInt = Field(default=5, ge=0, le=100, description="Training texts to return, with --trace-corpus.")


class TracedToken(BaseModel):
    layer: int
    projection: str
    index: int = Field(description="Of the parameter token in its projection's tensors.")
    stage: str = Field(description="The growth stage that added it.")
    weight: float = Field(description="Its weight w at this position.")
    share: float = Field(description="Its part of the sum of w^2 ||v||^2 over all parameter tokens of the model.")


class TracedText(BaseModel):
    line: int = Field(description="Of the corpus file, from 1.")
    text: str
    position: int = Field(description="Index of the text's token whose output is most like the traced position's.")
    token: str = Field(description="The token at that position.")
    following: str = Field(description="The token that follows it; empty at the end.")
    similarity: float = Field(
        description=f"Cosine, from 0 to 1, of the contributions w^2 ||v||^2 at the two positions, of the {KEPT} "
        "parameter tokens that contribute most to each."
    )


class TraceCorpus(BaseModel):
    ready: bool = Field(description="Whether the index is complete; it is built when a stage is first asked for.")
    positions: int = Field(description="Token positions that are indexed.")
    texts: int = Field(description="Texts that are indexed.")
    left_out: int = Field(description="Texts that did not fit.")
    progress: float = Field(description="From 0 to 1.")


class TraceResponse(BaseModel):
    object: Literal["trace"] = "trace"
    model: str
    tokens: int = Field(description="Number of tokens of prompt and completion.")
    position: int = Field(description="The traced position, from 0.")
    token: str = Field(description="The token at that position.")
    predicts: str = Field(description="The token that the model holds likeliest after it.")
    parameter_tokens: list[TracedToken] = Field(description="Those that contributed most, in order.")
    corpus: TraceCorpus | None = Field(description="Null without --trace-corpus.")
    training_texts: list[TracedText] | None = Field(description="Null without --trace-corpus, and until it is ready.")


@router.post(
    "/v1/trace",
    dependencies=[Depends(validate_json_request)],
    responses={200: {"model": TraceResponse}},
)
@with_cancellation  # type: ignore[untyped-decorator]
async def trace(request: TraceRequest, raw_request: Request) -> Response:
    """The parameter tokens behind a position's output, and training texts that fire the same ones."""
    tracer: Tracer = raw_request.app.state.tracer
    found = await tracer.trace(request)
    status = found.error.code if isinstance(found, ErrorResponse) else HTTPStatus.OK.value
    return JSONResponse(found.model_dump(), status_code=status)


class Tracer:
    """One trace at a time, in a thread beside the event loop."""

    def __init__(self, given: GivenText, served: ServedModel, corpus: Sequence[Text]) -> None:
        self.given, self.served, self.corpus = given, served, corpus
        self.indexes: dict[int, CorpusIndex] = {}
        self.turn = asyncio.Lock()

    @cached_property
    def model(self) -> ReferenceTokenformer:
        return load_reference(Path(self.served.name))

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self.served)

    async def trace(self, request: TraceRequest) -> TraceResponse | ErrorResponse:
        inner = request.rendered(uncertainty=False)
        prompt = await self.given.prompt_ids(inner)
        if isinstance(prompt, ErrorResponse):
            return prompt
        ids = prompt + await self.given.text_ids(request.completion)
        known, limit = self.given.chat.model_config.get_vocab_size(), self.given.chat.model_config.max_model_len
        if not all(0 <= token < known for token in prompt):
            raise VLLMValidationError(f"`prompt` takes token ids below {known}", parameter="prompt")
        if len(ids) > limit:
            message = f"prompt and completion have {len(ids)} tokens, more than the model's {limit}"
            raise VLLMValidationError(message, parameter=COMPLETION_TOKENS)
        position = len(ids) - 1 if request.position is None else request.position
        if not -len(ids) <= position < len(ids):
            message = f"`position` is {position}, but prompt and completion have {len(ids)} tokens"
            raise VLLMValidationError(message, parameter="position")
        adapter = self.given.chat._maybe_get_adapters(inner)
        stage = self.stage(adapter)
        name = self.given.chat.models.model_name(adapter)
        async with self.turn:
            return await asyncio.to_thread(self.compute, name, ids, position % len(ids), stage, request)

    def stage(self, adapter: LoRARequest | None) -> int:
        """Index of the adapter's growth stage, see `model_impl.variants`."""
        stages = len(cast(VariantModels, self.given.chat.models).config.stages)
        stage = adapter.lora_int_id - 1 if adapter else stages - 1
        if adapter and stage >= stages:
            message = f"`{adapter.lora_name}` is a growth delta; only the checkpoint and its stages can be traced"
            raise VLLMValidationError(message, parameter="model")
        return stage

    def compute(self, name: str, ids: list[int], position: int, stage: int, request: TraceRequest) -> TraceResponse:
        """Run the reference model, blocking, and start the index of a new stage."""
        torch.set_num_threads(1)  # of this thread: the engine has the other cores
        found = at_position(self.model, ids, position, stage)
        all_places, total = places(self.model.config, stage), float(found.contributions.sum())
        parameter_tokens = [
            TracedToken(
                **asdict(all_places[number]),
                weight=float(found.weights[number]),
                share=float(found.contributions[number]) / total if total else 0.0,
            )
            for number in found.contributions.topk(min(request.top, len(all_places))).indices.tolist()
        ]
        index, decode = self.index(stage), self.tokenizer.tokenizer.decode
        matched = None
        if index and index.ready:
            matched = self.training_texts(index, found.contributions.numpy(), request.texts)
        return TraceResponse(
            model=name,
            tokens=len(ids),
            position=position,
            token=decode(ids[position]),
            predicts=decode(int(found.logits.argmax())),
            parameter_tokens=parameter_tokens,
            corpus=self.describe(index) if index else None,
            training_texts=matched,
        )

    def index(self, stage: int) -> CorpusIndex | None:
        """The stage's index of the corpus, which the first call starts to build."""
        if not self.corpus:
            return None
        if stage not in self.indexes:
            longest = self.model.config.max_position_embeddings
            sequences = [self.tokenizer.ids(text.content)[:longest] for text in self.corpus]
            self.indexes[stage] = CorpusIndex(sequences)
            self.indexes[stage].start(self.model, stage)
        return self.indexes[stage]

    def describe(self, index: CorpusIndex) -> TraceCorpus:
        return TraceCorpus(
            ready=index.ready,
            positions=index.positions,
            texts=index.texts,
            left_out=len(self.corpus) - index.texts,
            progress=index.done / index.positions if index.positions else 1.0,
        )

    def training_texts(self, index: CorpusIndex, contributions: NDArray[np.float32], count: int) -> list[TracedText]:
        texts, decode = [], self.tokenizer.tokenizer.decode
        for match in index.nearest(contributions, count):
            ids = index.sequences[match.text]
            texts.append(
                TracedText(
                    line=self.corpus[match.text].line,
                    text=decode(ids),
                    position=match.position,
                    token=decode(ids[match.position]),
                    following=decode(ids[match.position + 1 : match.position + 2]),
                    similarity=match.similarity,
                )
            )
        return texts
