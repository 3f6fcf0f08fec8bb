"""A calibration's subject: a growth stage of a model, or a growth delta over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_impl.checkpoint.delta import GrowthDelta, check_delta, fingerprint_with, load_delta
from model_impl.checkpoint.reading import CheckpointError
from model_impl.one_line_error import OneLineError
from model_impl.variants import VERSION_MARK
from server.served.model import ONLY_TOKENFORMERS, ServedModel
from server.served.tokenformer import TokenformerCheckpoint
from server.uncertainty.calibration import calibration_file

if TYPE_CHECKING:  # needs vLLM
    from vllm.lora.request import LoRARequest


class VariantError(OneLineError):
    """A stage or delta that cannot be served; the message is one line for the user."""


@dataclass(frozen=True)
class Variant:
    served: ServedModel
    index: int
    """That of the stage; with a delta, of the last one, on which it grew."""
    delta: GrowthDelta | None = None

    @property
    def stages(self) -> Sequence[str]:
        """The names of its growth stages; the last is its own."""
        own = self.served.stages[: self.index + 1]
        return own if self.delta is None else [*own, self.delta.name]

    @property
    def fingerprint(self) -> str:
        if self.delta is None:
            return self.served.fingerprint(self.index)
        return fingerprint_with(self.served.name, self.delta)

    @property
    def directory(self) -> Path | None:
        """Where `serve` looks for its calibration; None for a model that lies on the Hub."""
        return self.served.directory if self.delta is None else self.delta.path

    @property
    def file(self) -> str:
        """The name of its calibration."""
        is_model = self.delta is None and self.index == len(self.served.stages) - 1
        return calibration_file(None if is_model else self.stages[-1])

    def adapter(self) -> LoRARequest | None:
        """The engine's name for it, as in `server.engine.variants`.

        The last stage needs no adapter, stage k is adapter k + 1, and deltas follow.
        """
        from vllm.lora.request import LoRARequest

        count = len(self.served.stages)
        if self.delta is not None:
            path = f"{self.delta.path.resolve()}{VERSION_MARK}{self.delta.digest}"
            return LoRARequest(self.delta.name, count + 1, path)
        if self.index == count - 1:
            return None
        return LoRARequest(self.stages[-1], self.index + 1, self.served.name)


def variant_of(served: ServedModel, stage: str | None = None, growth: Path | None = None) -> Variant:
    """The growth stage of this name (None: the last), or the delta in directory `growth` over the last stage.

    Raises VariantError or CheckpointError, in one line, if it cannot be served.
    """
    names = [served.stages[i] for i in served.servable]
    if growth is not None:
        return Variant(served, served.servable[-1], _delta(served, stage, growth))
    if stage is not None and stage not in names:
        raise VariantError(f"--stage: no stage {stage!r} to serve; there are {', '.join(names)}")
    return Variant(served, served.servable[-1 if stage is None else names.index(stage)])


def _delta(served: ServedModel, stage: str | None, growth: Path) -> GrowthDelta:
    if stage is not None:
        raise VariantError("--growth: a delta grew on the last stage; leave out --stage")
    if not isinstance(served, TokenformerCheckpoint):
        raise VariantError(f"--growth: {ONLY_TOKENFORMERS['deltas']}")
    try:
        delta = load_delta(growth)
        check_delta(delta, served.config, served.fingerprint())
    except CheckpointError as error:
        raise VariantError(f"--growth: {error}") from error
    return delta
