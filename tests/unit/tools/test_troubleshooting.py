"""docs/troubleshooting.md quotes messages that the code has, and misses no code of an error."""

from __future__ import annotations

import ast
import re

import pytest

from scripts.api_examples import PAGE as API
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def literals() -> str:
    """All texts of the code. One with placeholders is in pieces."""
    files = [file for room in ("server", "model_impl") for file in sorted((ROOT / room).rglob("*.py"))]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    found = [str(value, "ascii", "replace") if isinstance(value, bytes) else value for value in values]
    found = [text for text in found if isinstance(text, str)]
    return "\n".join([*found, *(file.read_text() for file in (ROOT / "server").rglob("*.js"))])


LITERALS = literals()


def messages() -> list[str]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    quoted = [row[1] if len(row) == 4 else row[0] for row in cells]
    return [message.strip("`") for message in quoted if message]


@pytest.mark.parametrize("message", messages())
def test_a_message_is_one_of_the_codes(message: str) -> None:
    pieces = [piece.strip() for piece in message.split("…")]
    pieces = [piece for piece in pieces if len(piece) > 3]
    assert pieces
    for piece in pieces:
        assert piece in LITERALS, piece


def test_every_code_of_an_error_is_explained() -> None:
    codes = API.read_text().partition("| status | codes |")[2].partition("\n\n")[0]
    for code in re.findall(r"`([a-z_]+)`", codes):
        assert f"`{code}`" in PAGE, code
