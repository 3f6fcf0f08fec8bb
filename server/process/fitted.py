"""The calibrations that belong to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from server.served.model import ServedModel
from server.served.tokenformer import TokenformerCheckpoint
from server.system.stderr import say
from server.uncertainty.calibration import Calibration, CalibrationError, find_calibrations, load_calibration


def calibrations_of(served: ServedModel, files: Sequence[Path] | None) -> dict[str, Calibration]:
    """The calibrations in `files`, or else beside the weights, by growth stage.

    A calibration of another model is skipped with a warning. So is an unreadable file beside the weights; in
    `files` it raises CalibrationError.
    """
    found: dict[str, Calibration] = {}
    beside = find_calibrations(served.directory) if served.directory else []
    for file in beside if files is None else files:
        try:
            calibration = load_calibration(file)
        except CalibrationError as error:
            if files is not None:
                raise
            say(f"warning: {error}; it is not used")
            continue
        if not belongs(calibration, served):
            say(f"warning: {file} was made for another model or stage; it is not used")
        elif not has_its_masks(calibration, served):
            say(f"warning: {file} was made for an ensemble with other masks; it is not used")
        elif calibration.stage in found:
            say(f"warning: {file} is a second calibration of stage {calibration.stage}; it is not used")
        else:
            found[calibration.stage] = calibration
            say(f"stage {calibration.stage} is calibrated by {file}")
    return found


def belongs(made: Calibration, served: ServedModel) -> bool:
    """Whether this model has exactly the stage that the file was made for."""
    index = next((i for i in served.servable if served.stages[i] == made.stage), None)
    return index is not None and served.fingerprint(index) == made.checkpoint


def has_its_masks(made: Calibration, served: ServedModel) -> bool:
    """Whether the ensemble that the calibration reads, if it reads one, is that of the model."""
    if made.ensemble is None or not isinstance(served, TokenformerCheckpoint):
        return made.ensemble is None
    own = served.config
    return made.ensemble["rate"] == own.ensemble_rate and made.ensemble["projections"] == own.ensemble_projections
