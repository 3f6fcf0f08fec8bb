"""vLLM's input processor with our overrides: the last checks of a request before the engine gets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.exceptions import VLLMNotFoundError, VLLMValidationError
from vllm.inputs import EngineInput, split_enc_dec_input
from vllm.lora.request import LoRARequest
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.input_processor import InputProcessor

from model_impl.wire import ARG_PREFIX, MEMBER_ARG
from server.engine.constraints.bad_words import banned_sequences
from server.engine.ensemble import is_own
from server.gate.context import CONTEXT
from server.requests.limits import blame_parameter, not_in_arguments

BESIDE_GRAMMARS = ("allowed_token_ids", "bad_words")
"""Parameters that may ban every token that a grammar allows, on which the engine fails."""


class CheckedInput(InputProcessor):
    """Refuses the arguments of an ensemble's members from clients, and bans both forms of bad words."""

    @staticmethod
    def assign_request_id(request: EngineCoreRequest) -> None:
        """Also salts the request's cache blocks for its API key. This is the last step that runs in the context of the
        request: raw prompts are processed in another thread."""
        if (salt := CONTEXT.get().cache_salt) is not None:
            request.cache_salt = f"{salt}/{request.cache_salt or ''}"
        InputProcessor.assign_request_id(request)

    def process_inputs(self, *args: Any, **kwargs: Any) -> EngineCoreRequest:
        request = super().process_inputs(*args, **kwargs)
        params = request.sampling_params
        if params is not None and params.bad_words and self.tokenizer is not None:
            params._bad_words_token_ids = banned_sequences(params.bad_words, self.tokenizer)
        return request

    def check(self, prompt: Any, params: SamplingParams) -> None:
        """Raises the errors of `process_inputs` early, with the parameter that is to blame."""
        with blame_parameter("prompt", known=CompletionRequest.model_fields):
            self._validate_params(params, ("generate",))
            if isinstance(prompt, dict) and "type" in prompt:  # rendered
                self._validate_model_inputs(*split_enc_dec_input(cast(EngineInput, prompt)))

    def _validate_params(self, params: SamplingParams | PoolingParams, *args: Any) -> bool | None:
        _check_arguments(getattr(params, "extra_args", None) or {})
        grammar = getattr(params, "structured_outputs", None)
        if grammar is not None and not grammar.all_constraints_none():
            for name in BESIDE_GRAMMARS:
                if getattr(params, name):
                    raise VLLMValidationError(f"`{name}` cannot be combined with a grammar.", parameter=name)
        return super()._validate_params(params, *args)


class VariantInput(CheckedInput):
    """Also accepts variants, although vLLM's adapters are off."""

    dropped: set[int]
    """Adapter ids of variants that the engine no longer has."""

    def _validate_lora(self, lora_request: LoRARequest | None) -> None:
        if lora_request is not None and lora_request.lora_int_id in self.dropped:
            raise VLLMNotFoundError(f"The model `{lora_request.lora_name}` was unloaded.")


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises VLLMValidationError for arguments of ours in `vllm_xargs`, which has no booleans and no objects."""
    for name, value in arguments.items():
        own = is_own(value) if name == MEMBER_ARG else isinstance(value, bool)
        foreign = name == "kv_transfer_params" and not isinstance(value, dict | None)
        if foreign or (name.startswith(ARG_PREFIX) and not own):
            raise not_in_arguments(name)
