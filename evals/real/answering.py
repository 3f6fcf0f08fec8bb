"""Answers of a stock model to the questions, by transformers: greedy ones and samples at temperature 1.

They are kept as lines of JSON, so that an interrupted run goes on where it was. The answers are drawn in bfloat16, as
the model is served.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from evals.real.matching import first_sentence
from server.uncertainty.sentences import sentences

LIMIT = 32
"""Tokens after which an answer is cut: nearly all say in their first sentence what they have to say."""

SAMPLES = 10
BATCH = 128
"""Rows that are generated at once."""


@dataclass(frozen=True)
class Answered:
    """The answers to one question, as token ids without padding; an end token is among them."""

    question: str
    tokens: list[list[int]]


class StockModel:
    """A model and its tokenizer, from a directory or the Hub."""

    def __init__(self, path: str, dtype: torch.dtype = torch.bfloat16) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
        self.end: int = self.tokenizer.eos_token_id

    def prompt(self, question: str) -> list[int]:
        """The ids of the chat template around a question."""
        messages = [{"role": "user", "content": question}]
        found = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        ids: list[int] = found["input_ids"]
        return ids

    def text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    @cached_property
    @torch.inference_mode()
    def shared(self) -> tuple[list[int], DynamicCache]:
        """The beginning of every prompt, and its keys and values."""
        ids = common_beginning(self.prompt("a"), self.prompt("B"))
        cache = DynamicCache(config=self.model.config)
        self.model(torch.tensor([ids]), past_key_values=cache)
        return ids, cache

    @torch.inference_mode()
    def answers(self, questions: Sequence[str], samples: int) -> list[Answered]:
        """`samples` of each question, or with 0 the greedy answer."""
        each = max(samples, 1)
        ids, shared = self.shared
        rows = [self.prompt(question)[len(ids) :] for question in questions]
        width = max(map(len, rows))
        tokens = torch.tensor([[self.end] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(row)) + [1] * len(row) for row in rows])
        cache = copy.deepcopy(shared)
        cache.batch_repeat_interleave(len(rows))
        logits = self.step(tokens, mask, cache)
        cache.batch_repeat_interleave(each)
        logits, mask = logits.repeat_interleave(each, dim=0), mask.repeat_interleave(each, dim=0)
        found: list[list[int]] = [[] for _ in range(len(rows) * each)]
        alive = torch.arange(len(found))
        while len(alive):
            chosen = logits.softmax(dim=-1).multinomial(1) if samples else logits.argmax(dim=-1, keepdim=True)
            for row, token in zip(alive.tolist(), chosen[:, 0].tolist(), strict=True):
                found[row].append(token)
            going = torch.tensor([not self.is_complete(found[row]) for row in alive.tolist()])
            kept = going.nonzero()[:, 0]
            if len(kept) < len(alive):
                cache.batch_select_indices(kept)
            alive, chosen, mask = alive[kept], chosen[kept], mask[kept]
            if len(alive):
                mask = torch.cat([mask, torch.ones_like(chosen)], dim=-1)
                logits = self.step(chosen, mask, cache)
        return [Answered(question, found[i * each : (i + 1) * each]) for i, question in enumerate(questions)]

    def step(self, tokens: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """The logits after the last of `tokens` [B, T], in float32; `mask` is that of all tokens so far."""
        places = (mask.cumsum(dim=-1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
        found = self.model(
            tokens, attention_mask=mask, position_ids=places, past_key_values=cache, logits_to_keep=1
        ).logits
        return found[:, -1].float()

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether an answer has ended, has begun a second sentence, or has reached the limit."""
        return tokens[-1] == self.end or len(tokens) == LIMIT or len(sentences(self.text(tokens))) > 1

    def judged(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of an answer's first sentence, and the end token where it follows."""
        text = self.text(tokens)
        end = len(first_sentence(text).rstrip())
        size = next(i for i in range(len(tokens) + 1) if len(self.text(tokens[:i])) >= end)
        return list(tokens[: size + (tokens[size : size + 1] == [self.end])])


def common_beginning(one: Sequence[int], other: Sequence[int]) -> list[int]:
    pairs = zip(one, other, strict=False)
    return [a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]


def answered(model: StockModel, questions: Iterable[str], file: Path, samples: int = 0) -> dict[str, Answered]:
    """The answers in `file`, and new ones of the questions that it lacks, which are added to it."""
    found = {one.question: one for one in kept(file)}
    lacking = sorted({question for question in questions if question not in found}, key=len)
    size = BATCH // max(samples, 1)
    batches = [lacking[start : start + size] for start in range(0, len(lacking), size)]
    random.Random(0).shuffle(batches)  # so that what an interrupted run leaves is of all lengths
    file.parent.mkdir(parents=True, exist_ok=True)
    for batch in tqdm(batches, desc=file.stem):
        torch.manual_seed(hash_of(batch[0]))
        new = model.answers(batch, samples)
        with file.open("a") as out:
            out.writelines(json.dumps(asdict(one)) + "\n" for one in new)
        found |= {one.question: one for one in new}
    return found


def kept(file: Path) -> list[Answered]:
    return [Answered(**json.loads(line)) for line in file.read_text().splitlines()] if file.is_file() else []


def hash_of(text: str) -> int:
    """A seed that does not depend on the run."""
    return int.from_bytes(text.encode()[:7].rjust(7), "big")
