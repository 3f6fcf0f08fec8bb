"""The examples of docs/api.md are what the demo server answers, and its cards have the fields that the page lists."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from scripts.api_examples import PAGE, Example, examples
from tests.support.servers import Server

pytestmark = pytest.mark.server

CHANGING = ("id", "created", "system_fingerprint")
ROUNDING = 0.02
"""Between processors."""


@pytest.mark.demo_only
@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.path)
def test_an_example_is_answered_as_the_page_says(demo: Server, example: Example) -> None:
    compare(example.asked(demo.url), example.answer)


def compare(found: Any, told: Any, place: str = "answer") -> None:
    assert type(found) is type(told) or {type(found), type(told)} == {int, float}, place
    if isinstance(told, dict):
        assert found.keys() == told.keys(), place
        for name in told.keys() - set(CHANGING):
            compare(found[name], told[name], f"{place}.{name}")
    elif isinstance(told, list):
        assert len(found) == len(told), place
        for i, part in enumerate(told):
            compare(found[i], part, f"{place}[{i}]")
    elif isinstance(told, float):
        assert found == pytest.approx(told, rel=ROUNDING, abs=ROUNDING), place
    else:
        assert found == told, place


def test_a_models_card_has_the_listed_fields(demo: Server) -> None:
    listed = re.findall(
        r"^\| `(\w+)`", PAGE.read_text().partition("## `GET /v1/models`")[2].partition("\n## ")[0], re.M
    )
    for card in httpx.get(f"{demo.url}/v1/models").json()["data"]:
        vllms = ("id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission")
        assert card.keys() - set(vllms) == set(listed)
