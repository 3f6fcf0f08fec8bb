"""Texts as training samples: token ids, and which of them are learned.

A plain text is learned whole. Of a chat only the assistant's answers are learned, up to and with the token that ends
the turn, as supervised fine-tuning does: the model never learns to ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_impl.checkpoint.tokenizer import NEOX_END_OF_TEXT
from model_impl.json_lines import line_error
from model_impl.texts import ChatTemplateError, Text, TextError, TextTokenizer

Span = tuple[int, int]
Sample = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Token ids, and for each whether it is learned."""


class Samples:
    """Many samples of any lengths, one after the other: ids int32 [N], learned bool [N].

    `cut` has the lines of the chats that were too long.
    """

    def __init__(self, samples: Sequence[Sample], cut: Sequence[int] = ()) -> None:
        self.cut = list(cut)
        self.lengths = np.array([len(ids) for ids, _ in samples], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.ids = np.concatenate([ids for ids, _ in samples]) if samples else np.zeros(0, np.int32)
        self.learned = np.concatenate([learned for _, learned in samples]) if samples else np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        place = slice(self.starts[number], self.starts[number] + self.lengths[number])
        return self.ids[place], self.learned[place]


def read_samples(path: Path, texts: Sequence[Text], tokenizer: TextTokenizer, longest: int) -> Samples:
    """Samples of at most `longest` tokens of the texts of the file `path`, END_OF_TEXT after each, which is learned.

    A longer plain text becomes several samples; a longer chat loses its end, and is left out if no answer is left.
    Raises TextError naming the line of a chat whose answers cannot be learned.
    """
    separator = separator_id(tokenizer)
    samples: list[Sample] = []
    cut_chats: list[int] = []
    for text in texts:
        try:
            ids, learned = _tokens(text.content, tokenizer)
        except ChatTemplateError as error:
            raise TextError(str(line_error(path, text.line, str(error)))) from error
        if not ids or ids[-1] != separator:
            ids, learned = [*ids, separator], [*learned, True]
        whole = np.array(ids, dtype=np.int32), np.array(learned)
        pieces = range(0, len(ids), longest) if isinstance(text.content, str) else range(1)
        if len(pieces) * longest < len(ids):
            cut_chats.append(text.line)
        cut = [(whole[0][i : i + longest], whole[1][i : i + longest]) for i in pieces]
        samples += [sample for sample in cut if sample[1][1:].any()]  # nothing predicts a first token
    if not samples:
        raise TextError(f"{path}: has nothing to learn in the first {longest} tokens of its texts")
    return Samples(samples, cut_chats)


def separator_id(tokenizer: TextTokenizer) -> int:
    """The token that ends a text: END_OF_TEXT where the tokenizer has it, else its end-of-sequence token."""
    ids = tokenizer.tokenizer.get_added_vocab()
    found = ids.get(NEOX_END_OF_TEXT, tokenizer.tokenizer.eos_token_id)
    if found is None:
        raise TextError("the tokenizer has no end-of-text token, so texts could not be told apart")
    return int(found)


def _tokens(content: str | Sequence[Mapping[str, Any]], tokenizer: TextTokenizer) -> tuple[list[int], list[bool]]:
    if isinstance(content, str):
        ids = tokenizer.ids(content)
        return ids, [True] * len(ids)
    text, spans = tokenizer.render(content), list(answer_spans(content, tokenizer))
    if not spans:
        raise ChatTemplateError("messages: none is of the assistant, so there is nothing to learn")
    encoded = tokenizer.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    learned = [any(start <= a and b <= stop for start, stop in spans) for a, b in encoded["offset_mapping"]]
    return list(encoded["input_ids"]), learned


def answer_spans(messages: Sequence[Mapping[str, Any]], tokenizer: TextTokenizer) -> Iterator[Span]:
    """Start and stop of every answer in the rendered chat, in characters.

    Raises ChatTemplateError where the template does not render the beginning of a chat as the beginning of its text.
    """
    whole = tokenizer.render(messages)
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            asked = tokenizer.render(messages[:i], ask=True)
            answered = whole if i + 1 == len(messages) else tokenizer.render(messages[: i + 1])
            if not (whole.startswith(answered) and answered.startswith(asked)):
                raise ChatTemplateError("messages: the chat template changes earlier turns, so answers cannot be found")
            yield len(asked), len(answered)
