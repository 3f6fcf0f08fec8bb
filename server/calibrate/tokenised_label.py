"""Labels as token ids for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_impl.texts import ChatTemplateError, TextTokenizer
from server.calibrate.labels import Label, LabelFile


@dataclass(frozen=True)
class TokenisedLabel:
    label: Label
    prompt: Sequence[int]
    answer: Sequence[int]
    """Empty for an answer to be generated."""
    room: int
    """Number of tokens that may follow; the engine generates at least one."""


def tokenised_labels(file: LabelFile, tokenizer: TextTokenizer, limit: int) -> list[TokenisedLabel]:
    """Raises LinesError for a label without tokens, longer than `limit`, or refused by the chat template."""
    return [tokenised_label(file, label, tokenizer, limit) for label in file.labels]


def tokenised_label(file: LabelFile, label: Label, tokenizer: TextTokenizer, limit: int) -> TokenisedLabel:
    try:
        prompt = tokenizer.ids(label.prompt, ask=True)
    except ChatTemplateError as error:
        raise file.error(label, str(error)) from error
    if not prompt:
        raise file.error(label, f"{label.prompt_field}: the tokenizer makes no token of it")
    answer = answer_ids(tokenizer, label)
    if label.answer is not None and not answer:
        raise file.error(label, "answer: the tokenizer makes no token of it")
    room = limit - len(prompt) - len(answer)
    if room < 1:
        raise file.error(
            label,
            f"{label.prompt_field} and answer: too long with {len(prompt)} and {len(answer)} tokens: "
            f"both and one token more must fit into {limit}",
        )
    return TokenisedLabel(label, prompt, answer, room)


def answer_ids(tokenizer: TextTokenizer, label: Label) -> list[int]:
    """The answer's ids; in a chat they end with the end-of-text token, like the model's own answers."""
    if label.answer is None:
        return []
    ids = list(tokenizer.tokenizer(label.answer, add_special_tokens=False)["input_ids"])
    end = tokenizer.tokenizer.eos_token_id
    return [*ids, end] if label.is_chat and end is not None else ids
