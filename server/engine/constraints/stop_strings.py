"""Stop strings of the generation configuration. Of that file vLLM reads other settings alone."""

from __future__ import annotations

from vllm.config import ModelConfig


def stop_strings(model: ModelConfig) -> list[str]:
    """The texts at which answers to chats end, where a request names none.

    Raises ValueError for a setting that is no list of texts.
    """
    entries = {} if model.generation_config == "vllm" else model.try_get_generation_config()
    found = (entries | model.override_generation_config).get("stop_strings") or []
    strings = [found] if isinstance(found, str) else found
    if not isinstance(strings, list) or not all(isinstance(string, str) and string for string in strings):
        raise ValueError("generation_config.json: stop_strings must be a list of texts")
    return strings
