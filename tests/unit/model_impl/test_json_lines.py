"""Files with a JSON value on every line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from model_impl.json_lines import LinesError, read_json_lines


def numbered(number: int, entry: Any) -> tuple[int, Any]:
    if entry == {"bad": True}:
        raise ValueError("it is bad")
    return number, entry


def test_every_line_with_its_number(tmp_path: Path) -> None:
    """Line ends of other systems are white space to JSON, and a text may hold what only Python takes for a line end."""
    file = tmp_path / "lines"
    file.write_bytes('\ufeff{"a": 1}\r\n\n  \n{"b": "one\u2028two\u0085three"}\n{}'.encode())
    found, digest = read_json_lines(file, numbered)
    assert found == [(1, {"a": 1}), (4, {"b": "one\u2028two\u0085three"}), (5, {})]
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{}\n{"bad": true}', ", line 2: it is bad"),
        (b"{}\n{", ", line 2: not JSON: "),
        (b"{}\n1", ", line 2: not a JSON object"),
        (b'{}\n{"a": ' + b"[" * 200_000, ", line 2: not read: nested too deeply"),
        (b"{}\n\n\xff", ", line 3: not UTF-8"),
        (None, ": No such file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "lines"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LinesError) as error:
        read_json_lines(file, numbered)
    assert str(error.value).startswith(f"{file}{said}")
