"""The growth stage that `--stage` names."""

from __future__ import annotations

from model_impl.one_line_error import OneLineError
from server.served.model import ServedModel


class StageError(OneLineError):
    """A stage that cannot be served; the message is one line for the user."""


def stage_index(served: ServedModel, stage: str | None) -> int:
    """Index of the growth stage of this name (None: the last); raises StageError if it cannot be served."""
    names = [served.stages[i] for i in served.servable]
    if stage is not None and stage not in names:
        raise StageError(f"--stage: no stage {stage!r} to serve; there are {', '.join(names)}")
    return served.servable[-1 if stage is None else names.index(stage)]
