"""The models a server offers, with what is known of each: its calibration, and what it can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ModelList
from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM

from model_impl.override import override_class
from server.engine.ensemble import Ensemble
from server.engine.input_processor import CheckedInput
from server.served.model import ONLY_TOKENFORMERS, ServedModel
from server.uncertainty.calibration import Calibration
from server.uncertainty.policy import DoubtPolicy


class ScoredModels(OpenAIServingModels):
    """vLLM's list of models. `open_models` sets it up. The adapters of a stock model are vLLM's own, for LoRA."""

    served: ServedModel
    calibrations: dict[int, Calibration]
    """Adapter id (0 for the model itself) -> its calibration."""
    doubt: DoubtPolicy
    """For requests that give none of their own."""
    ensemble: Ensemble

    def open_models(self, served: ServedModel, calibrations: Sequence[Calibration], doubt: DoubtPolicy) -> None:
        """`calibrations` were made for stages of the model, or for deltas over it."""
        self.served, self.doubt = served, doubt
        override_class(self.input_processor, CheckedInput)
        lacking = None if served.capabilities.ensemble else ONLY_TOKENFORMERS["ensemble"]
        self.ensemble = Ensemble(cast(AsyncLLM, self.engine_client), self.engine_client.vllm_config, lacking)
        by_stage = {made.stage: made for made in calibrations}
        self.calibrations = {0: by_stage[served.stages[-1]]} if served.stages[-1] in by_stage else {}

    def stages(self, adapter: LoRARequest | None) -> Sequence[str]:
        """The names of a variant's growth stages, by place (see `model_impl.wire`)."""
        return self.served.stages

    def segments(self, adapter: LoRARequest | None) -> dict[int, str]:
        """The same where growth tells them apart, else empty."""
        return {}

    def calibration(self, adapter: LoRARequest | None) -> Calibration | None:
        """The calibration that was fitted for exactly this variant."""
        return self.calibrations.get(adapter.lora_int_id if adapter else 0)

    def parameter_tokens(self, adapter: LoRARequest | None) -> dict[str, int] | None:
        """By projection; None for a model without them."""
        return None

    async def show_available_models(self) -> ModelList:
        """vLLM's cards, with a name instead of a path as `root`. Each also has its growth stage, its parameter tokens
        in each projection, its capabilities, and the name and threshold of its calibration."""
        models = await super().show_available_models()
        capabilities = self.served.capabilities
        for card in models.data:
            adapter = self.lora_requests.get(card.id)
            card.root = self.base_model_paths[0].name
            card.growth_stage = self.stages(adapter)[-1] if capabilities.stages else None  # type: ignore[attr-defined]
            card.parameter_tokens = self.parameter_tokens(adapter)  # type: ignore[attr-defined]
            card.capabilities = capabilities.as_dict()  # type: ignore[attr-defined]
            made = self.calibration(adapter)
            card.calibration = made and {"name": made.name, "abstain": made.abstain}  # type: ignore[attr-defined]
        return models
