"""The models of a Tokenformer: the checkpoint, its growth stages, and growth deltas on top of it.

A variant is an adapter of vLLM to the serving classes, the scheduler and the prefix cache. So a request names it by
`model`, and its KV cache blocks are its own.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import cast

from pydantic import ValidationError
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.lora.request import LoRARequest

from model_impl.checkpoint.delta import CHANGED, check_delta, load_delta
from model_impl.checkpoint.reading import CheckpointError
from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig
from model_impl.override import override_class
from model_impl.variants import VERSION_MARK
from server import metrics
from server.engine.fitted import calibration_of_delta
from server.engine.input_processor import VariantInput
from server.engine.models import ScoredModels
from server.served.tokenformer import TokenformerCheckpoint
from server.uncertainty.calibration import Calibration
from server.uncertainty.policy import DoubtPolicy

DRAIN_POLL_SECONDS = 0.05
MAX_DELTAS = 16
"""Deltas that clients may have loaded at a time. Each makes every step of every model slower."""

DELTA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
"""The name appears in URLs, logs and labels of metrics."""


class VariantModels(ScoredModels):
    """The adapters are growth stages and deltas. `open_variants` sets it up."""

    config: TokenformerConfig
    variants: dict[int, list[GrowthStage]]
    """Adapter id (0 for the checkpoint itself) -> its stages. Unloaded ids stay."""
    loading: asyncio.Lock
    growth_root: Path | None
    base_fingerprint: str | None
    draining: set[asyncio.Task[None]]
    resident: dict[int, str]
    """Adapter id -> name of each delta in the engine, including those that drain."""
    dropped: set[int]
    known_calibrations: Sequence[Calibration]
    """The calibrations that were found at the start, beside the weights or by `--calibration`."""

    def open_variants(
        self,
        served: TokenformerCheckpoint,
        growth_root: Path | None,
        calibrations: Sequence[Calibration],
        doubt: DoubtPolicy,
    ) -> None:
        """Offer every servable stage. The last has the checkpoint's own name, the others are NAME:STAGE.

        `growth_root` is the only directory from which clients may load deltas; None allows none. `calibrations` were
        made for stages of the model, or for deltas over it.
        """
        self.open_models(served, calibrations, doubt)
        config = self.config = served.config
        self.growth_root, self.base_fingerprint, self.draining = growth_root, None, set()
        self.resident = {}
        override_class(self.input_processor, VariantInput)
        self.dropped = cast(VariantInput, self.input_processor).dropped = set()
        self.lora_id_counter.inc(len(config.stages))  # ids up to here are stages, see model_impl.variants
        self.loading = asyncio.Lock()
        self.variants = {0: config.stages}
        base = self.base_model_paths[0]
        for index in config.servable_stages[:-1]:
            name = f"{base.name}:{config.stages[index].name}"
            self.variants[index + 1] = config.stages[: index + 1]
            self.lora_requests[name] = LoRARequest(name, index + 1, base.model_path, base_model_name=base.name)
        by_stage = {made.stage: made for made in calibrations}
        last = {adapter_id: stages[-1].name for adapter_id, stages in self.variants.items()}
        self.calibrations = {i: by_stage[name] for i, name in last.items() if name in by_stage}
        self.known_calibrations = calibrations

    def stages(self, adapter: LoRARequest | None) -> Sequence[str]:
        return [stage.name for stage in self._variant(adapter)]

    def segments(self, adapter: LoRARequest | None) -> dict[int, str]:
        """Empty for a checkpoint that has never grown."""
        grown = len(self.variants) > 1 or len(self.variants[0]) > 1
        return dict(enumerate(self.stages(adapter))) if grown else {}

    def parameter_tokens(self, adapter: LoRARequest | None) -> dict[str, int]:
        stages = self._variant(adapter)
        return {projection: sum(stage.tokens[projection] for stage in stages) for projection in PROJECTIONS}

    def _variant(self, adapter: LoRARequest | None) -> list[GrowthStage]:
        return self.variants[adapter.lora_int_id if adapter else 0]

    async def load_lora_adapter(
        self, request: LoadLoRAAdapterRequest, base_model_name: str | None = None
    ) -> ErrorResponse | str:
        """`load_delta` for clients: only from below `growth_root`, to which a path may be relative."""
        try:  # vLLM's /adapters route has checked nothing
            request = LoadLoRAAdapterRequest.model_validate(request, from_attributes=True)
        except ValidationError as error:
            return create_error_response(f"No name and path of a growth delta: {error.errors()[0]['msg']}.")
        if not DELTA_NAME.fullmatch(request.lora_name):
            message = f"`lora_name` must match {DELTA_NAME.pattern}."
            return create_error_response(message, param="lora_name")
        try:
            root = self.growth_root and self.growth_root.resolve()
            path = root and (root / request.lora_path).resolve()
        except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a zero byte
            return create_error_response("`lora_path` is no path of a directory.", param="lora_path")
        if root is None or path is None or not path.is_relative_to(root):
            message = f"The growth delta for `{request.lora_name}` lies outside the directory that may be loaded from."
            return create_error_response(message, param="lora_path")
        return await self.load_delta(request.model_copy(update={"lora_path": str(path)}), most=MAX_DELTAS)

    async def load_delta(self, request: LoadLoRAAdapterRequest, most: float = math.inf) -> ErrorResponse | str:
        """Load the growth delta in directory `lora_path` and serve it on top of the checkpoint as `lora_name`, unless
        the engine holds `most` deltas already."""
        async with self.loading:
            if len(self.resident) >= most:
                message = f"The server holds {len(self.resident)} growth deltas, and no more: unload one first."
                return create_error_response(message, param="lora_name")
            return await self._load_delta(request)

    async def _load_delta(self, request: LoadLoRAAdapterRequest) -> ErrorResponse | str:
        if (message := self._unavailable(request)) is not None:
            return create_error_response(message, param="lora_name")
        path = Path(request.lora_path)
        try:
            stage, digest, calibration = await asyncio.to_thread(self._check, request.lora_name, path)
        except CheckpointError as error:
            reason = str(error).replace(str(path), path.name[:64])  # clients must not learn the path
            message = f"The growth delta for `{request.lora_name}` cannot be loaded: {reason}"
            return create_error_response(message, param="lora_path")
        versioned = request.model_copy(update={"lora_path": f"{path.resolve()}{VERSION_MARK}{digest}"})
        # A reload gets an id of its own, so running streams keep the weights of the delta that it replaces.
        replaced = self.lora_requests.pop(request.lora_name, None) if request.load_inplace else None
        result = await super().load_lora_adapter(versioned)
        if isinstance(result, ErrorResponse):
            if replaced is not None:
                self.lora_requests[request.lora_name] = replaced
            return await self._not_loaded(request, result)  # as a worker refused
        loaded = self.lora_requests[request.lora_name]
        self.variants[loaded.lora_int_id] = [*self.config.stages, stage]
        if calibration is not None:
            self.calibrations[loaded.lora_int_id] = calibration
        self.resident[loaded.lora_int_id] = loaded.lora_name
        if replaced is not None:
            self._drain(replaced)
        return f"Success: growth delta '{request.lora_name}' is loaded."

    def _unavailable(self, request: LoadLoRAAdapterRequest) -> str | None:
        """Why a delta cannot have the name, in place of vLLM's messages, which speak of LoRA; None if it can."""
        name = request.lora_name
        if self.is_base_model(name):
            return f"`{name}` is the model itself and cannot be replaced."
        if self._is_stage(name):
            return f"`{name}` is a growth stage of the checkpoint and cannot be replaced."
        if name in self.lora_requests and not request.load_inplace:
            return f"A growth delta `{name}` is loaded already; `load_inplace` replaces it."
        return None

    async def _not_loaded(self, request: LoadLoRAAdapterRequest, result: ErrorResponse) -> ErrorResponse:
        """The error of a load that a worker refused. Others may hold the delta, so it is removed."""
        await self.engine_client.remove_lora(self.lora_id_counter.value)  # type: ignore[attr-defined]
        message = f"The growth delta for `{request.lora_name}` cannot be loaded: "
        if CHANGED in result.error.message:
            return create_error_response(message + CHANGED, param="lora_path")
        message += "the engine failed, and its log says why."
        return create_error_response(message, "InternalServerError", HTTPStatus.INTERNAL_SERVER_ERROR)

    async def unload_lora_adapter(self, request: UnloadLoRAAdapterRequest) -> ErrorResponse | str:
        """Stop offering a delta. Its tokens are freed when the last stream that uses it has ended."""
        if self._is_stage(request.lora_name):
            message = f"`{request.lora_name}` is a growth stage of the checkpoint and cannot be unloaded."
            return create_error_response(message, param="lora_name")
        loaded = self.lora_requests.get(request.lora_name)
        if loaded is None:  # vLLM would keep a lock for every name
            return create_error_response(
                "No growth delta of this name is loaded.", "NotFoundError", HTTPStatus.NOT_FOUND, param="lora_name"
            )
        result = await super().unload_lora_adapter(request)
        if isinstance(result, ErrorResponse):
            return result
        self._drain(loaded)
        return f"Success: growth delta '{request.lora_name}' is unloaded."

    def _is_stage(self, name: str) -> bool:
        loaded = self.lora_requests.get(name)
        return loaded is not None and loaded.lora_int_id <= len(self.config.stages)

    def _check(self, name: str, path: Path) -> tuple[GrowthStage, str, Calibration | None]:
        """The stage of the delta that is to be served as `name`, the hash of its content, and its calibration. Raises
        CheckpointError if it does not fit the checkpoint."""
        if self.base_fingerprint is None:
            self.base_fingerprint = self.served.fingerprint()
        delta = load_delta(path)
        check_delta(delta, self.config, self.base_fingerprint)
        return delta.stage, delta.digest, calibration_of_delta(name, delta, self.served, self.known_calibrations)

    def _drain(self, delta: LoRARequest) -> None:
        task = asyncio.create_task(self._drop_when_unused(delta.lora_int_id))
        self.draining.add(task)
        task.add_done_callback(self.draining.discard)

    async def _drop_when_unused(self, adapter_id: int) -> None:
        running = self.engine_client.output_processor.request_states  # type: ignore[attr-defined]

        def in_use() -> bool:
            return self.ensemble.using[adapter_id] > 0 or any(
                state.lora_request and state.lora_request.lora_int_id == adapter_id for state in running.values()
            )

        unused = 0
        while unused < 2:  # the ensemble scores an answer a moment after its request has ended
            await asyncio.sleep(DRAIN_POLL_SECONDS)
            unused = 0 if in_use() else unused + 1
        self.dropped.add(adapter_id)  # from here on no request can start on it
        # A stop string ends a request here a moment before the engine knows.
        await asyncio.sleep(DRAIN_POLL_SECONDS)
        await self.engine_client.remove_lora(adapter_id)  # type: ignore[attr-defined]
        self.calibrations.pop(adapter_id, None)
        name = self.resident.pop(adapter_id)
        if name not in self.lora_requests:
            self.lora_resolver_lock.pop(name, None)
        bases = (base.name for base in self.base_model_paths)
        metrics.keep_models({*bases, *self.lora_requests, *self.resident.values()})
