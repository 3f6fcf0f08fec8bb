"""The limit on a prompt's characters, for every route.

vLLM has no limit where a prompt is only tokenised, or truncated. Megabytes of text would then occupy the tokenizer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast

from vllm.exceptions import VLLMValidationError
from vllm.renderers import BaseRenderer, TokenizeParams


class BoundedRenderer(BaseRenderer):
    def _tokenize_singleton_prompt(self, prompt: Any, params: TokenizeParams) -> Any:
        return super()._tokenize_singleton_prompt(prompt, self._bounded(prompt, params))

    async def _tokenize_singleton_prompt_async(self, prompt: Any, params: TokenizeParams) -> Any:
        return await super()._tokenize_singleton_prompt_async(prompt, self._bounded(prompt, params))

    def _bounded(self, prompt: Any, params: TokenizeParams) -> TokenizeParams:
        """Raises VLLMValidationError for too long a text. If it is to be truncated, returns parameters by which vLLM
        cuts it before it tokenises it."""
        text, tokenizer = prompt.get("prompt"), self.tokenizer
        if "prompt_token_ids" in prompt or text is None or tokenizer is None:
            return params
        length = self.model_config.max_model_len
        if params.truncate_prompt_tokens is not None:
            side = params.truncation_side or cast(Literal["left", "right"], tokenizer.truncation_side)
            return replace(params, truncation_side=side)
        if params.max_total_tokens is None and len(text) > length * tokenizer.max_chars_per_token:
            message = f"The prompt has {len(text)} characters, more than the model's {length} tokens can hold."
            raise VLLMValidationError(message, parameter="input_text")
        return params
