"""The calibrations that belong to a model: to its growth stages, and to growth deltas over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from model_impl.checkpoint.delta import GrowthDelta, fingerprint_with
from server.served.model import ServedModel
from server.served.tokenformer import TokenformerCheckpoint
from server.system.stderr import say
from server.uncertainty.calibration import Calibration, CalibrationError, find_calibrations, load_calibration
from server.uncertainty.features import GROUPS


def calibrations_of(
    served: ServedModel, files: Sequence[Path] | None, deltas: Mapping[str, GrowthDelta] | None = None
) -> list[Calibration]:
    """The calibrations in `files`, or else beside the weights, of stages and of `deltas`, which are by served name.

    One of another model is skipped with a warning. So is an unreadable file beside the weights; in `files` it raises
    CalibrationError.
    """

    def owner(made: Calibration) -> str | None:
        if belongs(made, served):
            return f"stage {made.stage}"
        return next((f"delta {name}" for name, delta in (deltas or {}).items() if fits(made, served, delta)), None)

    beside = find_calibrations(served.directory) if served.directory else []
    foreign = "was made for another model or stage; it is not used"
    return _owned(beside if files is None else files, served, owner, foreign, strict=files is not None)


def calibration_of_delta(
    name: str, delta: GrowthDelta, served: ServedModel, known: Sequence[Calibration]
) -> Calibration | None:
    """The calibration of a delta over the model, on which it grew: one of the `known` ones, or the one in the delta's
    directory. `name` is that of the delta as a model."""
    own = next((made for made in known if fits(made, served, delta)), None)
    if own is not None:
        return own

    def owner(made: Calibration) -> str | None:
        return f"delta {name}" if fits(made, served, delta) else None

    foreign = "was made for another base or delta; it is not used"
    return next(iter(_owned(find_calibrations(delta.path), served, owner, foreign, announced=True)), None)


def _owned(
    files: Sequence[Path],
    served: ServedModel,
    owner: Callable[[Calibration], str | None],
    foreign: str,
    *,
    strict: bool = False,
    announced: bool = False,
) -> list[Calibration]:
    """The first calibration of each owner. `foreign` is the warning about one without an owner."""
    found: dict[str, Calibration] = {}
    for file in files:
        try:
            calibration = load_calibration(file)
        except CalibrationError as error:
            if strict:
                raise
            say(f"warning: {error}; it is not used")
            continue
        own = owner(calibration)
        if own is None:
            say(f"warning: {file} {foreign}")
        elif not has_its_masks(calibration, served):
            say(f"warning: {file} was made for an ensemble with other masks; it is not used")
        elif own in found:
            say(f"warning: {file} is a second calibration of {own}; it is not used")
        else:
            found[own] = calibration
            if announced:
                say(f"{own} is calibrated by {file}")
    return list(found.values())


def warn_of_pipeline(calibrations: Sequence[Calibration]) -> None:
    """Warn of those that judge nothing in a pipeline, as its ranks report neither epistemic uncertainty nor growth."""
    missing = {*GROUPS["closed_form"], *GROUPS["growth"]}
    for made in calibrations:
        if made.needs & missing:
            say(
                f"warning: the calibration of stage {made.stage} reads epistemic uncertainty or growth, which a "
                "pipeline does not report: the risks of its answers will be null"
            )


def belongs(made: Calibration, served: ServedModel) -> bool:
    """Whether this model has exactly the stage that the file was made for."""
    index = next((i for i in served.servable if served.stages[i] == made.stage), None)
    return index is not None and served.fingerprint(index) == made.checkpoint


def fits(made: Calibration, served: ServedModel, delta: GrowthDelta) -> bool:
    """Whether the file was made for exactly this delta over this model."""
    return made.stage == delta.name and fingerprint_with(served.name, delta) == made.checkpoint


def has_its_masks(made: Calibration, served: ServedModel) -> bool:
    """Whether the ensemble that the calibration reads, if it reads one, is that of the model."""
    if made.ensemble is None or not isinstance(served, TokenformerCheckpoint):
        return made.ensemble is None
    own = served.config
    return made.ensemble["rate"] == own.ensemble_rate and made.ensemble["projections"] == own.ensemble_projections
