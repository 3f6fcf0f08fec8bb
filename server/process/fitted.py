"""The calibrations that belong to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.config import TokenformerConfig
from server.system.stderr import say
from server.uncertainty.calibration import Calibration, CalibrationError, find_calibrations, load_calibration


def calibrations_of(
    checkpoint: Path, config: TokenformerConfig, files: Sequence[Path] | None
) -> dict[str, Calibration]:
    """The calibrations in `files`, or else beside the weights, by growth stage.

    A calibration of another checkpoint is skipped with a warning. So is an unreadable file beside the weights; in
    `files` it raises CalibrationError.
    """
    found: dict[str, Calibration] = {}
    for file in find_calibrations(checkpoint) if files is None else files:
        try:
            calibration = load_calibration(file)
        except CalibrationError as error:
            if files is not None:
                raise
            say(f"warning: {error}; it is not used")
            continue
        if not belongs(calibration, checkpoint, config):
            say(f"warning: {file} was made for another checkpoint or stage; it is not used")
        elif calibration.ensemble and any(
            calibration.ensemble[name] != getattr(config, f"ensemble_{name}") for name in ("rate", "projections")
        ):
            say(f"warning: {file} was made for an ensemble with other masks; it is not used")
        elif calibration.stage in found:
            say(f"warning: {file} is a second calibration of stage {calibration.stage}; it is not used")
        else:
            found[calibration.stage] = calibration
            say(f"stage {calibration.stage} is calibrated by {file}")
    return found


def belongs(made: Calibration, checkpoint: Path, config: TokenformerConfig) -> bool:
    """Whether this checkpoint has exactly the stage that the file was made for."""
    index = next((i for i in config.servable_stages if config.stages[i].name == made.stage), None)
    return index is not None and fingerprint(checkpoint, index) == made.checkpoint
