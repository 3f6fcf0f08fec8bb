"""Calibrations of the demo checkpoint whose labels are known to have been whole chats, or are not known."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.demo_server import DEMO

DOUBT_TEXT = "I do not know for sure."

CHATS = {"forms": {"chat": 100}, "finish_reasons": {"stop": 100}, "units": {"answer": 100}}


def calibration_files(directory: Path) -> list[Path]:
    """The demo's own calibrations: of its last stage for whole chats, of `base` for any answer, as older files are."""
    files = []
    for name, population in (("calibration.json", CHATS), ("calibration-base.json", None)):
        content = json.loads((DEMO / name).read_text())
        content.pop("population", None)
        files.append(directory / name)
        files[-1].write_text(json.dumps(content | ({"population": population} if population else {})))
    return files
