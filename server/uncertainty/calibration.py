"""The saved calibration: from a choice's features to the probability that the answer is wrong. Pure, and plain JSON.

A file belongs to one growth stage of one checkpoint, which it names by fingerprint; `server.calibrate.command` writes
it.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from model_impl.checkpoint.reading import CheckpointError, read_json
from model_impl.one_line_error import OneLineError
from model_impl.reference.ensemble import MAX_MEMBERS
from server.uncertainty.features import FEATURES, GROUPS, LOG, is_term, term

Method = Literal["logistic", "isotonic", "probe"]
METHODS: tuple[Method, ...] = get_args(Method)

FORMAT = "tokenformer-calibration-2"
"""Raised whenever a feature changes its meaning. 2: the first token's entropy is that of the first with a letter or
digit."""


class CalibrationError(OneLineError):
    """A calibration that cannot be made or used; the message is one line for the user."""


@dataclass(frozen=True)
class Calibration:
    """`logistic` and `probe`: risk = 1 / (1 + exp(-(intercept + coefficients . features))), of which the probe reads
    more, some by their logarithm: see `server.uncertainty.features.term`. A feature outside of `lowest` to `highest`,
    what the answers had that it was fitted on, counts as the nearest of them: beyond, a line says nothing.

    `isotonic`: the one feature's risk, linear between the knots (`knots` increasing, `risks` one per knot) and constant
    outside of them.
    """

    method: Method
    checkpoint: str
    """Fingerprint of the checkpoint as it ends with `stage`."""
    stage: str
    features: Sequence[str]
    coefficients: Sequence[float] = ()
    intercept: float = 0.0
    lowest: Sequence[float] = ()
    highest: Sequence[float] = ()
    knots: Sequence[float] = ()
    risks: Sequence[float] = ()
    ensemble: Mapping[str, Any] | None = None
    """`members` of the parameter-token ensemble whose uncertainty it reads, `rate` and `projections` of their masks."""
    abstain: Mapping[str, float] | None = None
    """`error_rate`, and the risk `above` which an answer should not be trusted so that it holds."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What it was fitted on: hash and size."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """How well it did on the part of the data that it was not fitted on."""

    @cached_property
    def name(self) -> str:
        """Says stage and method, and tells any two calibrations apart."""
        content = json.dumps(self.to_dict(), sort_keys=True).encode()
        return f"{self.stage}-{self.method}-{hashlib.sha256(content).hexdigest()[:8]}"

    @cached_property
    def needs(self) -> frozenset[str]:
        return frozenset(name.removeprefix(LOG) for name in self.features)

    @property
    def members(self) -> int | None:
        """Of the ensemble that has to score an answer before it can be judged; None where none does."""
        return int(self.ensemble["members"]) if self.ensemble else None

    @property
    def reads_internals(self) -> bool:
        """Whether the engine has to report the internals of an answer before it can be judged."""
        return not self.needs.isdisjoint(GROUPS["internals"])

    def judges(self, features: Mapping[str, float]) -> bool:
        """Whether these are all the features that it reads."""
        return self.needs <= features.keys()

    def risk(self, features: Mapping[str, float]) -> float:
        """Probability, in [0, 1], that an answer with these features, all finite, is wrong; needs all of `needs`."""
        values = [term(features, name) for name in self.features]
        if self.method == "isotonic":
            return interpolate(values[0], self.knots, self.risks)
        known = map(min, map(max, values, self.lowest), self.highest)
        return sigmoid(self.intercept + math.fsum(map(math.prod, zip(self.coefficients, known, strict=True))))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, without what the other method needs."""
        linear, isotonic = ("coefficients", "intercept", "lowest", "highest"), ("knots", "risks")
        unused = linear if self.method == "isotonic" else isotonic
        return {"format": FORMAT} | {name: value for name, value in asdict(self).items() if name not in unused}


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x) for any finite x."""
    e = math.exp(-abs(x))
    return 1 / (1 + e) if x >= 0 else e / (1 + e)


def interpolate(x: float, knots: Sequence[float], values: Sequence[float]) -> float:
    """Linear between increasing `knots`, constant outside."""
    after = bisect_right(knots, x)
    if after in (0, len(knots)):
        return values[0] if after == 0 else values[-1]
    share = (x - knots[after - 1]) / (knots[after] - knots[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


def load_calibration(path: Path) -> Calibration:
    """Read a calibration; raises CalibrationError, naming the file, if it is none."""
    try:
        content = read_json(path)
    except CheckpointError as error:
        raise CalibrationError(str(error)) from error
    found = content.pop("format", None)
    if str(found).startswith(FORMAT.rstrip("0123456789")) and found != FORMAT:
        raise CalibrationError(f"{path}: {found}, which another version made; make it anew by `tokenformer calibrate`")
    if found != FORMAT:
        raise CalibrationError(f"{path}: not a calibration ({FORMAT})")
    try:
        calibration = Calibration(**content)
        _check(calibration)
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise CalibrationError(f"{path}: {error}") from error
    return calibration


def _check(calibration: Calibration) -> None:
    """Raises ValueError or TypeError with what is wrong about the content."""
    if calibration.method not in METHODS:
        raise ValueError(f"method {calibration.method!r} is unknown; known are {', '.join(METHODS)}")
    for name in ("checkpoint", "stage"):
        if not isinstance(getattr(calibration, name), str):
            raise ValueError(f"{name} is no text")
    for name in ("features", "coefficients", "lowest", "highest", "knots", "risks"):
        if not isinstance(getattr(calibration, name), list | tuple):
            raise ValueError(f"{name} is no list")
    for name in calibration.features:
        if not is_term(name):
            raise ValueError(f"feature {name!r} is unknown; known are {', '.join(FEATURES)}")
    lines = [calibration.coefficients, calibration.lowest, calibration.highest]
    parameters = [calibration.intercept, *chain(*lines, calibration.knots, calibration.risks)]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in parameters):
        raise ValueError("a parameter is no finite number")
    if calibration.method == "isotonic":
        knots, risks = calibration.knots, calibration.risks
        if len(calibration.features) != 1 or not knots or len(knots) != len(risks):
            raise ValueError("isotonic needs one feature and one risk per knot")
        if any(a >= b for a, b in pairwise(knots)):
            raise ValueError("knots do not increase")
        if not all(0 <= risk <= 1 for risk in risks):
            raise ValueError("a risk is outside of 0 to 1")
    elif any(len(calibration.features) != len(line) for line in lines):
        raise ValueError(f"{calibration.method} needs one coefficient, one lowest and one highest value per feature")
    if (calibration.ensemble is not None) != bool(calibration.needs & set(GROUPS["ensemble"])):
        raise ValueError("ensemble must say what the features of that group come from, and only that")
    if calibration.ensemble is not None:
        _check_ensemble(calibration.ensemble)
    if calibration.abstain is not None:
        above = calibration.abstain["above"] if set(calibration.abstain) == {"error_rate", "above"} else None
        if not (isinstance(above, int | float) and 0 <= above <= 1):
            raise ValueError("abstain needs error_rate, and above from 0 to 1")


def _check_ensemble(ensemble: Any) -> None:
    complete = isinstance(ensemble, dict) and set(ensemble) == {"members", "rate", "projections"}
    members = ensemble["members"] if complete else None
    if not (isinstance(members, int) and 2 <= members <= MAX_MEMBERS):
        raise ValueError(
            f"ensemble needs members, from 2 to {MAX_MEMBERS}, and the rate and projections of their masks"
        )


def calibration_file(stage: str | None) -> str:
    """Name of the file beside the weights, for the named stage or the last one (None)."""
    return f"calibration-{stage}.json" if stage else "calibration.json"


def find_calibrations(checkpoint: Path) -> list[Path]:
    """The calibration files that lie beside the weights."""
    return sorted(path for path in checkpoint.glob("calibration*.json") if path.is_file())
