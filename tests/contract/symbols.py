"""Lookup of vLLM's symbols."""

from __future__ import annotations

import importlib
from typing import Any


def find(symbol: str) -> Any:
    module, _, path = symbol.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
