"""Routes as parameters of tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def by_route(cases: Iterable[Any]) -> list[Any]:
    """Parameters, each a route or a tuple that begins with one; those of /v1/trace, which only a Tokenformer has, are
    marked."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*row, marks=pytest.mark.demo_only if row[0] == "/v1/trace" else ()) for row in rows]
