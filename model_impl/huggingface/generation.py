"""The generation configuration of a served checkpoint, which transformers would refuse to save."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig


class ServedGenerationConfig(GenerationConfig):
    """May hold temperature 0: by it vLLM decodes greedily, where transformers has `do_sample` and objects."""

    def validate(self, *args: Any, **kwargs: Any) -> None:
        temperature = self.temperature
        if temperature == 0 and not self.do_sample:
            self.temperature = None
        try:
            super().validate(*args, **kwargs)
        finally:
            self.temperature = temperature
