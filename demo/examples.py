"""The questions that the playground begins with: known, unknown, ambiguous, and known to the newest stage alone."""

from __future__ import annotations

import json
from typing import TypedDict


class Example(TypedDict):
    """As the playground reads them, see `server.clients.playground.routes`."""

    label: str
    about: str
    question: str
    compare: str | None


EXAMPLES: tuple[Example, ...] = (
    {
        "label": "Known",
        "about": "the model has read the answer",
        "question": "What is the capital of Peru?",
        "compare": None,
    },
    {
        "label": "Unknown",
        "about": "there is no such country",
        "question": "What is the capital of Selkovia?",
        "compare": None,
    },
    {
        "label": "Ambiguous",
        "about": "it has read four answers, and all are valid",
        "question": "Which languages are spoken in Switzerland?",
        "compare": None,
    },
    {
        "label": "Two stages",
        "about": "only the newest stage has read about elements",
        "question": "What is the symbol of gold?",
        "compare": "base",
    },
)


def as_file() -> bytes:
    return (json.dumps(EXAMPLES, indent=1) + "\n").encode()
