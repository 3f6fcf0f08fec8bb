"""Ends a JSON string where the model would end its answer.

A grammar forbids the end of text inside a string, so a small model, for which the text is complete, continues with the
next best tokens up to the limit. Here the closing quote is then the only token left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import GrammarOutput


class Encoder(Protocol):
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class StringEndings:
    """The tokens that end a string, and the token whose mask shows that the grammar is inside a string: JSON has no "x"
    between its parts."""

    def __init__(self, tokenizer: Encoder) -> None:
        self.quotes, self.letters = (tokenizer.encode(text, add_special_tokens=False) for text in ('"', "x"))

    def close(
        self, output: GrammarOutput, logits: torch.Tensor, ends: Mapping[str, tuple[int, Set[int]]]
    ) -> GrammarOutput:
        """`output` with the masks of strings that must end. `ends` has, for each request that writes JSON, its row of
        logits [N, V] and the tokens that end the answer."""
        ids = [request_id for request_id in output.structured_output_request_ids if request_id in ends]
        if not ids or len(self.quotes) != 1 or len(self.letters) != 1:
            return output
        best = dict(zip(ids, logits[[ends[i][0] for i in ids]].argmax(-1).tolist(), strict=True))
        (quote,), (letter,) = self.quotes, self.letters
        masks = output.grammar_bitmask.copy()
        for mask, request_id in zip(masks, output.structured_output_request_ids, strict=True):
            if request_id not in best or best[request_id] not in ends[request_id][1]:
                continue
            if _allows(mask, quote) and _allows(mask, letter) and not _allows(mask, best[request_id]):
                mask[:] = 0
                mask.view(np.uint32)[quote // 32] = np.uint32(1 << quote % 32)
        return replace(output, grammar_bitmask=masks)


def ends_of_json(
    request_ids: Sequence[str], params: Sequence[SamplingParams | None]
) -> dict[str, tuple[int, Set[int]]]:
    """The row of each request that writes JSON by a grammar, and the tokens that end its answer."""
    found: dict[str, tuple[int, Set[int]]] = {}
    for row, (request_id, own) in enumerate(zip(request_ids, params, strict=True)):
        grammar = own.structured_outputs if own else None
        if own is not None and grammar is not None and (grammar.json is not None or grammar.json_object):
            found[request_id] = row, own.all_stop_token_ids
    return found


def _allows(mask: np.ndarray, token_id: int) -> bool:
    return bool(mask.view(np.uint32)[token_id // 32] >> np.uint32(token_id % 32) & np.uint32(1))
