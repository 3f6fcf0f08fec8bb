"""The main process of a run, which alone speaks to the user."""

from __future__ import annotations

import os
import sys


def is_main_process() -> bool:
    """Whether this is the first process that a launcher such as `accelerate launch` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def warn(text: str) -> None:
    """Print a warning once, not in every process."""
    if is_main_process():
        print(f"warning: {text}", file=sys.stderr)
