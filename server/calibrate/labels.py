"""Labelled answers for calibrations, one JSON object per line.

{"prompt": "The capital of Peru is", "answer": " Lima.", "correct": true}
{"messages": [{"role": "user", "content": "Where is Peru?"}], "answer": "In Europe.", "correct": false}
{"messages": [...], "answer": "generate", "expected": ["The capital of Peru is Lima."], "group": "Peru"}
{"messages": [...], "answer": "In Europe.", "correct": false, "topic": "continent"}
{"messages": [...], "answer": "It is in Europe. Its capital is Lima.", "sentences": [false, true]}

The module imports nothing heavy, so that a faulty file is reported at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from model_impl.json_lines import STRICT, LinesError, Message, NonEmpty, encodable, line_error, read_json_lines
from server.uncertainty.sentences import sentences

GENERATE = "generate"

FEWEST = 10
"""Minimum of right and of wrong answers in each half of the labels, fitted and held out."""


@dataclass(frozen=True)
class Label:
    """A prompt (text, or the messages of a chat) and an answer that is known to be right or wrong.

    `answer` None stands for the model's own greedy answer, which is right if it is among `expected`. `line` is the
    line of the file. Labels of one `topic` ask the same kind of thing.
    """

    line: int
    prompt: str | Sequence[Mapping[str, Any]]
    answer: str | None
    correct: bool | None
    expected: Sequence[str] = ()
    group: str = ""
    topic: str = ""
    sentence: int | None = None
    """Index of the sentence of `answer` that the label is about; None for the whole answer."""

    @property
    def is_chat(self) -> bool:
        return not isinstance(self.prompt, str)

    @property
    def prompt_field(self) -> str:
        return "messages" if self.is_chat else "prompt"

    def is_correct(self, answer: str) -> bool:
        """Whether `answer` is right: by its label, or equal to an expected answer except for white space."""
        if self.correct is not None:
            return self.correct
        return " ".join(answer.split()) in {" ".join(text.split()) for text in self.expected}

    @property
    def cluster(self) -> str:
        """Equal for labels that must stay together: those of one group or, without a group, of one prompt."""
        return self.group or json.dumps(self.prompt, sort_keys=True)


@dataclass(frozen=True)
class LabelFile:
    path: Path
    labels: Sequence[Label]
    sha256: str

    def error(self, label: Label, message: str) -> LinesError:
        """The error for a label, in the form of the file's errors."""
        return LinesError(f"--data: {line_error(self.path, label.line, message)}")


def listed(value: Any) -> Any:
    """A list of one for a single text."""
    return [value] if isinstance(value, str) else value


class LabelLine(BaseModel):
    """The fields of a line; null means absent."""

    model_config = STRICT

    prompt: NonEmpty | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    answer: NonEmpty
    correct: bool | None = None
    expected: Annotated[list[NonEmpty] | None, BeforeValidator(listed), Field(min_length=1)] = None
    group: Annotated[str, AfterValidator(encodable)] | None = None
    topic: Annotated[str, AfterValidator(encodable)] | None = None
    sentences: list[bool] | None = None

    @model_validator(mode="after")
    def one_of_each(self) -> LabelLine:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("needs either prompt or messages")
        if [self.correct, self.expected, self.sentences].count(None) != 2:
            raise ValueError("needs one of correct, expected and sentences")
        if self.answer == GENERATE and self.expected is None:
            raise ValueError("an answer to generate needs expected: whether it is correct is not known yet")
        if self.sentences is not None and len(self.sentences) != (count := len(sentences(self.answer))):
            raise ValueError(f"sentences: there are {len(self.sentences)}, and the answer has {count}")
        return self

    def labels(self, line: int) -> list[Label]:
        """One label, or one for each sentence."""
        whole = self.label(line)
        if self.sentences is None:
            return [whole]
        return [replace(whole, correct=correct, sentence=i) for i, correct in enumerate(self.sentences)]

    def label(self, line: int) -> Label:
        answer = None if self.answer == GENERATE else self.answer
        return Label(
            line,
            self.prompt or self.messages or (),
            answer,
            self.correct,
            tuple(self.expected or ()),
            self.group or "",
            self.topic or "",
        )


def read_labels(path: Path) -> LabelFile:
    """The labels in `path`; raises LinesError naming the line that is wrong."""
    try:
        lines, sha256 = read_json_lines(path, lambda line, entry: LabelLine.model_validate(entry).labels(line))
    except LinesError as error:
        raise LinesError(f"--data: {error}") from error
    return LabelFile(path, [label for labels in lines for label in labels], sha256)


def check_number(labels: Sequence[Label]) -> None:
    """Raises LinesError for too few labels."""
    if len(labels) < 4 * FEWEST:
        raise LinesError(f"--data: {len(labels)} labels are too few; {4 * FEWEST} is the least")
