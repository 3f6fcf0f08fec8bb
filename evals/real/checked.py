"""Labels that were read by hand: question, judged sentence, the matcher's label and the reader's verdict on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKED = Path(__file__).with_name("checked.jsonl")


def rows() -> list[dict[str, Any]]:
    """Each with `question`, `answer`, `right` (the label) and `label_is_right` (the verdict)."""
    return [json.loads(line) for line in CHECKED.read_text().splitlines()]


def checked() -> dict[str, float]:
    found = rows()
    wrong = sum(not row["label_is_right"] for row in found)
    return {"checked": len(found), "wrong": wrong, "rate": wrong / len(found)}
