"""The stop strings of a generation configuration, as `generate` of transformers takes them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from vllm.config import ModelConfig

from server.engine.constraints.stop_strings import stop_strings


class Model:
    """What `stop_strings` asks of vLLM's configuration of a model."""

    def __init__(self, entries: dict[str, Any], source: str = "auto", override: dict[str, Any] | None = None) -> None:
        self.entries, self.generation_config = entries, source
        self.override_generation_config = override or {}

    def try_get_generation_config(self) -> dict[str, Any]:
        return self.entries


def found(*arguments: Any) -> list[str]:
    return stop_strings(cast(ModelConfig, Model(*arguments)))


def test_they_are_those_of_the_file_unless_a_flag_says_otherwise() -> None:
    assert found({"eos_token_id": 0}) == found({"stop_strings": None}) == []
    assert found({"stop_strings": ["\nUser:", "END"]}) == ["\nUser:", "END"]
    assert found({"stop_strings": "END"}) == ["END"]
    assert found({"stop_strings": ["END"]}, "vllm") == []
    assert found({"stop_strings": ["END"]}, "auto", {"stop_strings": ["A"]}) == ["A"]


@pytest.mark.parametrize("value", [5, [5], [""], {"a": 1}], ids=repr)
def test_another_type_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^generation_config.json: stop_strings must be a list of texts$"):
        found({"stop_strings": value})
