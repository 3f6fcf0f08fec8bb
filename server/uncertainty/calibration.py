"""The saved calibration: from a choice's features to the probability that the answer is wrong. Plain JSON.

`server.calibrate.command` writes the file. It names its checkpoint and growth stage by fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic takes that of `typing` from Python 3.12 only

from model_impl.one_line_error import OneLineError
from model_impl.reference.ensemble import MAX_MEMBERS
from server.uncertainty.features import GROUPS, LOG, is_term, term
from server.uncertainty.reason import Population, is_of_sentences
from server.uncertainty.saved import EXACT, Number, load_saved

Method = Literal["logistic", "isotonic", "probe"]
METHODS: tuple[Method, ...] = get_args(Method)

FORMAT = "tokenformer-calibration-2"
"""The number rises whenever a feature changes its meaning. 2: the first token's entropy is that of the first token
with a letter or digit."""


class CalibrationError(OneLineError):
    """A calibration that cannot be made or used; the message is one line for the user."""


def _known(name: str) -> str:
    if not is_term(name):
        raise ValueError(f"{name!r} is no feature of this version; make the file anew by `tokenformer calibrate`")
    return name


def _increasing(knots: Sequence[float]) -> Sequence[float]:
    if any(a >= b for a, b in pairwise(knots)):
        raise ValueError("must increase")
    return knots


Probability = Annotated[Number, Field(ge=0, le=1)]


@with_config(EXACT)
class Ensemble(TypedDict):
    """The parameter-token ensemble that a calibration reads: its size, and the rate and projections of its masks."""

    members: Annotated[int, Field(strict=True, ge=2, le=MAX_MEMBERS)]
    rate: Number
    projections: list[str]


@with_config(EXACT)
class Abstention(TypedDict):
    """The risk `above` which an answer should not be trusted so that `error_rate` holds."""

    error_rate: Number
    above: Probability


@with_config(EXACT)
@dataclass(frozen=True)
class Calibration:
    """`logistic` and `probe`: risk = 1 / (1 + exp(-(intercept + coefficients . features))). The probe reads
    more features, some by their logarithm: see `server.uncertainty.features.term`. Features are clipped to the range of
    the fitted answers, `lowest` to `highest`: a line says nothing beyond it.

    `isotonic`: the one feature's risk, linear between the knots (`knots` increasing, `risks` one per knot) and constant
    outside of them.
    """

    method: Method
    checkpoint: str
    """Fingerprint of the checkpoint as it ends with `stage`."""
    stage: str
    features: Sequence[Annotated[str, AfterValidator(_known)]]
    coefficients: Sequence[Number] = ()
    intercept: Number = 0.0
    lowest: Sequence[Number] = ()
    highest: Sequence[Number] = ()
    knots: Annotated[Sequence[Number], AfterValidator(_increasing)] = ()
    risks: Sequence[Probability] = ()
    ensemble: Ensemble | None = None
    abstain: Abstention | None = None
    population: Population | None = None
    """The kinds of answers that it was fitted on; None in older files, which are taken to hold for all."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Hash and size of the labelled answers."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Measured on the held-out answers."""

    @cached_property
    def name(self) -> str:
        """Stage, method and a hash of the content."""
        content = json.dumps(self.to_dict(), sort_keys=True).encode()
        return f"{self.stage}-{self.method}-{hashlib.sha256(content).hexdigest()[:8]}"

    @cached_property
    def needs(self) -> frozenset[str]:
        return frozenset(name.removeprefix(LOG) for name in self.features)

    @property
    def judges_sentences(self) -> bool:
        """Whether it was fitted on sentences: then the risk of an answer is that of its worst one."""
        return is_of_sentences(self.population)

    @property
    def members(self) -> int | None:
        """Members of the ensemble that it reads; None without one."""
        return self.ensemble["members"] if self.ensemble else None

    def judges(self, features: Mapping[str, float]) -> bool:
        """Whether `features` has all that it reads."""
        return self.needs <= features.keys()

    def risk(self, features: Mapping[str, float]) -> float:
        """Probability, in [0, 1], that an answer with these finite features is wrong; they include `needs`."""
        values = [term(features, name) for name in self.features]
        if self.method == "isotonic":
            return interpolate(values[0], self.knots, self.risks)
        known = map(min, map(max, values, self.lowest), self.highest)
        return sigmoid(self.intercept + math.fsum(map(math.prod, zip(self.coefficients, known, strict=True))))

    def to_dict(self) -> dict[str, Any]:
        """The saved JSON, without the fields of the other methods."""
        linear, isotonic = ("coefficients", "intercept", "lowest", "highest"), ("knots", "risks")
        unused: tuple[str, ...] = linear if self.method == "isotonic" else isotonic
        if self.population is None:  # the names of older calibrations stay what they are
            unused += ("population",)
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


def _consistent(calibration: Calibration) -> Calibration:
    """Raises ValueError for fields that do not go together."""
    sizes = {len(calibration.coefficients), len(calibration.lowest), len(calibration.highest)}
    if calibration.method == "isotonic":
        if len(calibration.features) != 1 or not calibration.knots or len(calibration.knots) != len(calibration.risks):
            raise ValueError("isotonic needs one feature and one risk per knot")
    elif sizes != {len(calibration.features)}:
        raise ValueError(f"{calibration.method} needs one coefficient, one lowest and one highest value per feature")
    if (calibration.ensemble is not None) != bool(calibration.needs & set(GROUPS["ensemble"])):
        raise ValueError("ensemble must say what the features of that group come from, and only that")
    return calibration


SCHEMA: TypeAdapter[Calibration] = TypeAdapter(Annotated[Calibration, AfterValidator(_consistent)])


def load_calibration(path: Path) -> Calibration:
    """Read a calibration; raises CalibrationError, naming the file, if it is none."""
    return load_saved(path, SCHEMA, FORMAT, "calibrate", CalibrationError)


def calibration_file(stage: str | None) -> str:
    """Name of the file beside the weights, for the named stage or the last one (None). A stage may have any name."""
    return f"calibration-{stage.replace('/', '_')}.json" if stage else "calibration.json"


def find_calibrations(checkpoint: Path) -> list[Path]:
    """The calibration files that lie beside the weights."""
    return sorted(path for path in checkpoint.glob("calibration*.json") if path.is_file())
