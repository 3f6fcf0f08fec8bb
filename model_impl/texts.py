"""Texts of a JSON lines file: {"text": "..."} or {"messages": [{"role": "user", "content": "..."}, ...]} per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, Field, model_validator

from model_impl.checkpoint.reading import CheckpointError, one_line
from model_impl.checkpoint.tokenizer import DEFAULT_CHAT_TEMPLATE, TOKENIZER
from model_impl.json_lines import STRICT, LinesError, Message, NonEmpty, line_error, read_json_lines
from model_impl.one_line_error import OneLineError


class TextError(OneLineError):
    """A file of texts that cannot be read; the message is one line for the user."""


class ChatTemplateError(OneLineError):
    """Messages that the chat template refuses; the message is one line for the user."""


@dataclass(frozen=True)
class Text:
    """A text, or the messages of a whole chat; `line` is that of the file."""

    line: int
    content: str | Sequence[Mapping[str, Any]]


class TextLine(BaseModel):
    """The fields of a line; null means absent."""

    model_config = STRICT

    text: NonEmpty | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def one_of_both(self) -> TextLine:
        if (self.text is None) == (self.messages is None):
            raise ValueError("needs either text or messages")
        return self

    def content(self, line: int) -> Text:
        return Text(line, self.text or self.messages or ())


def read_texts(path: Path) -> tuple[list[Text], str]:
    """The texts in `path` and the SHA-256 of the file; raises TextError naming the line that is wrong."""
    try:
        texts, digest = read_json_lines(path, lambda line, entry: TextLine.model_validate(entry).content(line))
    except LinesError as error:
        raise TextError(str(error)) from error
    if not texts:
        raise TextError(f"{path}: has no texts")
    return texts, digest


class Tokenized(Protocol):
    """A model as far as its texts are concerned."""

    @property
    def own_template(self) -> Path | None:
        """The chat template for a tokenizer without one, if there is any."""

    def tokenizer(self) -> Any:
        """The tokenizer of the library transformers; raises CheckpointError for one that cannot be loaded."""


@dataclass(frozen=True)
class TokenizedCheckpoint:
    """A Tokenformer checkpoint, as far as its texts are concerned."""

    path: Path
    own_template: Path | None = DEFAULT_CHAT_TEMPLATE

    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        from model_impl.hf_config import HuggingFaceConfig

        file = self.path / TOKENIZER
        if not file.is_file():
            raise CheckpointError(f"{self.path}: has no {TOKENIZER}")
        config = HuggingFaceConfig.from_pretrained(self.path)  # otherwise the library does not know the file's type
        try:
            return AutoTokenizer.from_pretrained(self.path, config=config, trust_remote_code=False)
        except Exception as error:  # the tokenizers library raises plain Exception
            raise CheckpointError(f"{file}: cannot be loaded ({one_line(error)})") from error


class TextTokenizer:
    """A model's tokenizer as the server loads it, with the default chat template where it has none of its own.

    Raises CheckpointError for one that cannot be loaded.
    """

    def __init__(self, model: Tokenized) -> None:
        self.tokenizer: Any = model.tokenizer()
        own = model.own_template
        self.template = None if self.tokenizer.chat_template or own is None else own.read_text()

    def ids(self, content: str | Sequence[Mapping[str, Any]], *, ask: bool = False) -> list[int]:
        """Token ids as in the server. The chat template's text already holds all special tokens. `ask` appends the
        beginning of an answer to the messages. Raises ChatTemplateError."""
        if isinstance(content, str):
            return list(self.tokenizer(content)["input_ids"])
        return list(self.tokenizer(self.render(content, ask=ask), add_special_tokens=False)["input_ids"])

    def render(self, messages: Sequence[Mapping[str, Any]], *, ask: bool = False) -> str:
        """The text of a chat; `ask` appends the beginning of an answer. Raises ChatTemplateError."""
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=ask
            )
        except Exception as error:  # a template is a program, and may raise anything
            raise ChatTemplateError(f"messages: the chat template refuses them: {one_line(error)}") from error
        return text


def tokenised(path: Path, texts: Sequence[Text], tokenizer: TextTokenizer) -> list[list[int]]:
    """The ids of every text of the file `path`; raises TextError naming the line whose messages cannot be a chat."""
    sequences = []
    for text in texts:
        try:
            sequences.append(tokenizer.ids(text.content))
        except ChatTemplateError as error:
            raise TextError(str(line_error(path, text.line, str(error)))) from error
    return sequences
