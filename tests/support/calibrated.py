"""Labelled answers of a tiny grown model that talks in numbered words, and its own features of them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from model_impl.reference.attribution import attribution
from model_impl.reference.closed_form import epistemic
from model_impl.reference.model import ReferenceTokenformer
from server.uncertainty.tokens import TokenScore
from tests.support.exact import exact_statistics
from tests.support.grown import VOCABULARY, grown_checkpoint, word_tokenizer
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import Moved

END = 98  # no other word begins with w98: the tokenizer finds special tokens inside of words, too
CONTEXT = 128


def checkpoint(directory: Path, stages: int = 2, **options: Any) -> ReferenceTokenformer:
    """The word w98 ends an answer."""
    files = word_tokenizer()
    settings = json.loads(files["tokenizer_config.json"]) | {"eos_token": f"w{END}"}
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    return grown_checkpoint(directory, stages, files=files, eos_token_id=END, **options)


def words(ids: Sequence[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


@torch.no_grad()
def greedy(model: ReferenceTokenformer, stage: int, prompt: Sequence[int], length: int) -> list[int]:
    """The likeliest answer, of `length` tokens unless END comes before."""
    ids = list(prompt)
    while len(ids) < len(prompt) + length and (len(ids) == len(prompt) or ids[-1] != END):
        ids.append(int(model(torch.tensor([ids]), stage)[0, -1].argmax()))
    return ids[len(prompt) :]


@torch.no_grad()
def answer(model: ReferenceTokenformer, stage: int, prompt: Sequence[int], ids: Sequence[int]) -> Moved:
    """The tokens `ids` after a prompt, with the reference model's distributions."""
    text, drawn = torch.tensor([[*prompt, *ids]]), slice(len(prompt) - 1, -1)
    logits = model(text, stage)[0, drawn].double()
    unsure = epistemic(model, text, stage)[0, drawn].tolist()
    parts = attribution(model, text[:, :-1], text[:, 1:], stage)[0, len(prompt) - 1 :].tolist()
    stages = [part.name for part in model.config.stages[: stage + 1]]
    rows = zip(ids, logits.log_softmax(-1), exact_statistics(logits), unsure, parts, strict=True)
    tokens = [
        TokenScore(
            float(row[word]),
            *statistics.tolist(),
            text=f" w{word}",
            special=word == END,
            epistemic=closed,
            growth=dict(zip(stages, part, strict=True)),
        )
        for word, row, statistics, closed, part in rows
    ]
    return Moved(tokens, logit_tolerance(model, text, stage)[0, drawn].tolist())


def labels(model: ReferenceTokenformer, stage: int, count: int) -> list[dict[str, Any]]:
    """Questions whose greedy answer is right and whose random answer is wrong."""
    draw = random.Random(2)
    lines = []
    for _ in range(count // 2):
        prompt = [draw.randrange(VOCABULARY) for _ in range(draw.randrange(2, 20))]
        right = greedy(model, stage, prompt, draw.randrange(2, 6))
        wrong = [draw.randrange(VOCABULARY) for _ in range(draw.randrange(2, 6))]
        for answer, correct in ((right, True), (wrong, False)):
            lines.append({"prompt": words(prompt), "answer": words(answer), "correct": correct})
    return lines
