"""The greedy answers as labels for `tokenformer calibrate`: those about countries and invented places, no elements."""

from __future__ import annotations

import json
from pathlib import Path

from evals.real.view import View


def write_labels(view: View, file: Path) -> None:
    """One line per answer; the answers about one country are one group, and an attribute is a topic."""
    rows = zip(view.questions, view.texts, view.wrong.tolist(), strict=True)
    lines = [
        {
            "messages": [{"role": "user", "content": question.text}],
            "answer": text.strip(),
            "correct": not wrong,
            "group": question.fact.group,
            "topic": question.fact.attribute,
        }
        for question, text, wrong in rows
        if question.kind != "element" and text.strip()
    ]
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
