"""Labelled answers, one JSON object per line: what a calibration is fitted on.

{"prompt": "Mara Velen lives in", "answer": " Lisbon.", "correct": true}
{"messages": [{"role": "user", "content": "Where does Mara Velen live?"}], "answer": "In Bern.", "correct": false}
{"messages": [...], "answer": "generate", "expected": ["Mara Velen lives in Lisbon."], "group": "Mara Velen"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.calibration import CalibrationError
from server.json_lines import LinesError, read_json_lines
from server.texts import is_message

GENERATE = "generate"
FIELDS = {"prompt", "messages", "answer", "correct", "expected", "group"}


@dataclass(frozen=True)
class Label:
    """A prompt (text, or the messages of a chat), and an answer that is known to be right or wrong.

    `answer` None: the model's own greedy answer, which is right if it is one of `expected`. `line` is that of the file.
    """

    line: int
    prompt: str | Sequence[Mapping[str, Any]]
    answer: str | None
    correct: bool | None
    expected: Sequence[str] = ()
    group: str = ""

    def is_correct(self, answer: str) -> bool:
        """Whether `answer` is right: as labelled, or equal to an expected one but for white space."""
        if self.correct is not None:
            return self.correct
        return " ".join(answer.split()) in {" ".join(text.split()) for text in self.expected}

    @property
    def cluster(self) -> str:
        """Equal for labels that must stay together: of one group or, where none is named, of one prompt."""
        return self.group or json.dumps(self.prompt, sort_keys=True)


def read_labels(path: Path) -> tuple[list[Label], str]:
    """The labels in `path` and the SHA-256 of the file; raises CalibrationError naming the line that is wrong."""
    try:
        return read_json_lines(path, parse_label)
    except LinesError as error:
        raise CalibrationError(f"--data: {error}") from error


def parse_label(line: int, entry: Any) -> Label:
    """Raises ValueError with what is wrong."""
    if not isinstance(entry, dict):
        raise ValueError("not a JSON object")
    if unknown := sorted(entry.keys() - FIELDS):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(FIELDS))}")
    if ("prompt" in entry) == ("messages" in entry):
        raise ValueError("needs either prompt or messages")
    prompt = entry["prompt"] if "prompt" in entry else entry["messages"]
    if "prompt" in entry and not (isinstance(prompt, str) and prompt):
        raise ValueError("prompt is no text")
    if "messages" in entry and not (isinstance(prompt, list) and prompt and all(map(is_message, prompt))):
        raise ValueError('messages is no list of {"role": text, "content": text}')
    answer, correct, expected = entry.get("answer"), entry.get("correct"), entry.get("expected")
    if not (isinstance(answer, str) and answer):
        raise ValueError(f'answer is no text; "{GENERATE}" asks the model')
    if (correct is None) == (expected is None):
        raise ValueError("needs either correct or expected")
    if answer == GENERATE and expected is None:
        raise ValueError("an answer to generate needs expected: whether it is correct is not known yet")
    if correct is not None and not isinstance(correct, bool):
        raise ValueError("correct is not true or false")
    texts = [expected] if isinstance(expected, str) else expected
    if texts is not None and not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
        raise ValueError("expected is no text or list of texts")
    group = entry.get("group", "")
    if not isinstance(group, str):
        raise ValueError("group is no text")
    return Label(line, prompt, None if answer == GENERATE else answer, correct, tuple(texts or ()), group)
