"""Texts of a JSON lines file: {"text": "..."} or {"messages": [{"role": "user", "content": "..."}, ...]} per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_impl.tokenizer_files import DEFAULT_CHAT_TEMPLATE
from server.json_lines import LinesError, read_json_lines


class TextError(ValueError):
    """A file of texts that cannot be read; the message is one line for the user."""


@dataclass(frozen=True)
class Text:
    """A text, or the messages of a whole chat; `line` is that of the file."""

    line: int
    content: str | Sequence[Mapping[str, Any]]


def read_texts(path: Path) -> tuple[list[Text], str]:
    """The texts in `path` and the SHA-256 of the file; raises TextError naming the line that is wrong."""
    try:
        texts, digest = read_json_lines(path, lambda number, entry: Text(number, parse_text(entry)))
    except LinesError as error:
        raise TextError(str(error)) from error
    if not texts:
        raise TextError(f"{path}: has no texts")
    return texts, digest


def parse_text(entry: Any) -> str | list[dict[str, Any]]:
    """Raises ValueError with what is wrong."""
    if not isinstance(entry, dict) or entry.keys() not in ({"text"}, {"messages"}):
        raise ValueError('not an object with "text" or "messages"')
    if "text" in entry:
        if not (isinstance(entry["text"], str) and entry["text"]):
            raise ValueError("text is no text")
        return str(entry["text"])
    messages = entry["messages"]
    if not (isinstance(messages, list) and messages and all(map(is_message, messages))):
        raise ValueError('messages is no list of {"role": text, "content": text}')
    return messages


def is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


class TextTokenizer:
    """A checkpoint's tokenizer, with the default chat template where it has none of its own."""

    def __init__(self, checkpoint: Path) -> None:
        from transformers import PreTrainedTokenizerFast

        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
        self.template = None if self.tokenizer.chat_template else DEFAULT_CHAT_TEMPLATE.read_text()

    def ids(self, content: str | Sequence[Mapping[str, Any]], *, ask: bool = False) -> list[int]:
        return token_ids(self.tokenizer, self.template, content, ask=ask)


def token_ids(
    tokenizer: Any, template: str | None, content: str | Sequence[Mapping[str, Any]], *, ask: bool
) -> list[int]:
    """As the server tokenises: messages by the chat template (None: the tokenizer's own), whose text holds all special
    tokens already. `ask` ends them with what an answer begins with."""
    if isinstance(content, str):
        return list(tokenizer(content)["input_ids"])
    text = tokenizer.apply_chat_template(content, chat_template=template, tokenize=False, add_generation_prompt=ask)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
