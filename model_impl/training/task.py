"""The task of a run: the model that it trains, and the texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model_impl.checkpoint.official_config import SUFFIXES
from model_impl.checkpoint.reading import load_config
from model_impl.training.recipe import TrainingError


@dataclass(frozen=True)
class Task:
    """All of the model `source`, or its growth stage `stage` alone, is trained on the texts of `data`.

    `source` is a checkpoint directory, or the official yml or json file of a new model, whose `tokenizer` is trained on
    the texts where none is given. `replay` holds texts that the model has learned. Raises OneLineError for what does
    not fit together.
    """

    source: Path
    data: Path
    out: Path
    stage: str | None = None
    replay: Path | None = None
    tokenizer: Path | None = None

    def __post_init__(self) -> None:
        if not self.source.exists():
            raise TrainingError(f"{self.source}: no such checkpoint directory or shape file")
        if self.new:
            self._check_new()
        else:
            self._check_stage()

    @cached_property
    def new(self) -> bool:
        """Whether the source is the shape of a new model."""
        return self.source.is_file()

    def _check_new(self) -> None:
        if self.source.suffix not in SUFFIXES:
            raise TrainingError(f"{self.source}: neither a checkpoint directory nor a shape ({', '.join(SUFFIXES)})")
        if self.stage is not None:
            raise TrainingError(f"--stage: {self.source} is a new model, without growth stages")
        if self.replay is not None:
            raise TrainingError(f"--replay: {self.source} is a new model, which has learned nothing yet")

    def _check_stage(self) -> None:
        names = [stage.name for stage in load_config(self.source).stages]
        if self.tokenizer is not None:
            raise TrainingError(f"--tokenizer: {self.source} has one of its own")
        if self.stage is None:
            return
        if self.stage not in names:
            raise TrainingError(f"--stage: {self.source} has no stage {self.stage!r}; it has {', '.join(names)}")
        if self.stage != names[-1]:
            raise TrainingError(
                f"--stage: {names[-1]!r} grew on {self.stage!r}, which must stay; only it can be trained"
            )
        if len(names) == 1:
            raise TrainingError(f"--stage: {self.stage!r} is the whole model; without --stage it is trained")
