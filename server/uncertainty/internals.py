"""The Pattention internals of tokens as answers show them, and their averages over an answer. No vLLM.

The engine delivers them as flat columns, see `model_impl.wire`; docs/internals.md says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from model_impl.config import PROJECTIONS
from model_impl.wire import INTERNALS
from server.uncertainty.profile import Profile

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from server.engine.statistics import ScoredLogprob

Array = NDArray[np.float64]

DIGITS = 6
"""Decimal places: the engine computes in float32, and a token has hundreds of these numbers."""

STANDARDISED_INTERNALS = (*INTERNALS, *(f"{name}_z" for name in INTERNALS))
"""Statistics of one Pattention and token, with a profile."""

FEATURES = tuple(f"{projection}_{name}" for projection in PROJECTIONS for name in INTERNALS)
"""Names of the features that calibrations read, see `InternalsScore.features`."""

STANDARDISED = "Standardised: (value - mean) / standard deviation over the training texts; null without a profile."


class ProjectionInternals(BaseModel):
    """Statistics of one Pattention for one token; null where undefined."""

    score_norm: float | None = Field(description="ln(||x K^T|| / ||x||): how much of the input the key tokens see.")
    kurtosis: float | None = Field(description="Kurtosis m4 / m2^2 of the weights w; 3 for a normal distribution.")
    participation: float | None = Field(
        description="(sum w^2)^2 / (n sum w^4), the participation ratio as a share of the n tokens, from 1/n to 1."
    )
    positive_share: float | None = Field(description="Share of the weights above 0.")
    score_norm_z: float | None = Field(default=None, description=STANDARDISED)
    kurtosis_z: float | None = Field(default=None, description=STANDARDISED)
    participation_z: float | None = Field(default=None, description=STANDARDISED)
    positive_share_z: float | None = Field(default=None, description=STANDARDISED)
    growth: dict[str, float] | None = Field(
        default=None,
        description="Share of each growth stage in sum w^2 ||v||^2; null for a model that never grew.",
    )


class LayerInternals(BaseModel):
    query: ProjectionInternals
    key: ProjectionInternals
    value: ProjectionInternals
    output: ProjectionInternals
    ffn: ProjectionInternals


class TokenInternals(BaseModel):
    layers: list[LayerInternals]


@dataclass(frozen=True)
class ReadInternals:
    """The columns of one token, float64 [layers, 5, ...], projections as in `PROJECTIONS`."""

    numbers: Array
    """Values of `INTERNALS`, followed with a profile by (value - mean) / std of each. Undefined numbers are not
    finite, also where the training texts show no variation."""
    contributions: Array
    """Sum of w^2 ||v||^2 by place."""


@dataclass(frozen=True)
class InternalsReader:
    """Reads the columns that the engine reports for one variant.

    `stages` maps a place among the `places` to its growth stage's name; empty for a model that never grew.
    """

    layers: int
    places: int
    stages: Mapping[int, str]
    profile: Profile | None

    @cached_property
    def norms(self) -> tuple[Array, Array] | None:
        """Mean and standard deviation, float64 [layers, 5, 4] each."""
        return None if self.profile is None else (np.array(self.profile.mean), np.array(self.profile.std))

    def read(self, columns: list[float]) -> ReadInternals:
        """The flat columns of one token, in their shape."""
        parts = np.array(columns).reshape(self.layers, len(PROJECTIONS), len(INTERNALS) + self.places)
        statistics, contributions = parts[..., : len(INTERNALS)], parts[..., len(INTERNALS) :]
        if self.norms is None:
            return ReadInternals(statistics, contributions)
        mean, std = self.norms
        with np.errstate(divide="ignore", invalid="ignore"):
            return ReadInternals(np.concatenate([statistics, (statistics - mean) / std], axis=-1), contributions)

    def token(self, found: ReadInternals) -> dict[str, Any]:
        """`TokenInternals` as JSON holds it."""
        names = (*(INTERNALS if self.norms is None else STANDARDISED_INTERNALS), "growth")
        rows = found.numbers.round(DIGITS)
        undefined = ~np.isfinite(rows)
        if undefined.any():
            rows = rows.astype(object)
            rows[undefined] = None
        growth = self.growth(found.contributions.reshape(-1, self.places))
        values = zip(rows.reshape(-1, len(names) - 1).tolist(), growth, strict=True)
        projections = [dict(zip(names, (*own, part), strict=True)) for own, part in values]
        layers = zip(*[iter(projections)] * len(PROJECTIONS), strict=True)
        return {"layers": [dict(zip(PROJECTIONS, layer, strict=True)) for layer in layers]}

    def growth(self, contributions: Array) -> list[dict[str, float] | None]:
        """Each stage's share, per row of sums of w^2 ||v||^2 by place [rows, places]."""
        if not self.stages:
            return [None] * len(contributions)
        totals = contributions.sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = (contributions[:, list(self.stages)] / totals).round(DIGITS).tolist()
        names, known = self.stages.values(), (totals[:, 0] > 0).tolist()
        return [dict(zip(names, own, strict=True)) if k else None for own, k in zip(shares, known, strict=True)]

    def of(self, entry: ScoredLogprob) -> ReadInternals | None:
        """The internals of the entry's token, if the engine reported them."""
        return self.read(entry.internal_columns) if entry.internal_columns else None

    def describe(self, entry: ScoredLogprob) -> ReadInternals | None:
        """As `of`; the entry also shows growth and internals from now on."""
        if entry.provenance:
            (entry.growth,) = self.growth(np.array([entry.provenance]))
        found = self.of(entry)
        if found is not None:
            entry.internals = self.token(found)
        return found


def unavailable_reason(config: VllmConfig) -> str | None:
    """Why an engine with these settings reports no internals; None if it does."""
    needs = "`uncertainty.internals` needs a server started "
    if not config.model_config.enforce_eager:
        return f"{needs}with --enforce-eager: a compiled model returns what it was traced with"
    if config.parallel_config.pipeline_parallel_size > 1:
        return f"{needs}without pipeline parallelism: a rank sees only its own layers"
    if config.speculative_config is not None:
        return f"{needs}without speculative decoding: drafted tokens are not sampled one by one"
    return None


class InternalsScore:
    """Running averages of an answer's internals over its tokens; numbers that are not finite do not count."""

    def __init__(self, reader: InternalsReader, *, shown: bool = True) -> None:
        """`shown`: whether tokens and summary show them; a calibration reads them in any case."""
        self.reader, self.shown = reader, shown
        shape = (reader.layers, len(PROJECTIONS), len(INTERNALS if reader.norms is None else STANDARDISED_INTERNALS))
        self.sums, self.counts = np.zeros(shape), np.zeros(shape)
        """Sums and counts of `ReadInternals.numbers`; of standardised ones, absolute values are summed."""

    def add(self, entry: ScoredLogprob) -> None:
        """One more token."""
        found = self.reader.describe(entry) if self.shown else self.reader.of(entry)
        if found is None:
            return
        finite = np.isfinite(found.numbers)
        values = np.where(finite, found.numbers, 0.0)
        distances = values[..., len(INTERNALS) :]
        np.abs(distances, out=distances)
        self.sums += values
        self.counts += finite

    def features(self) -> dict[str, float]:
        """Mean of every statistic that is ever defined over tokens and layers, by the names in `FEATURES`."""
        means = self._means(axis=0)[:, : len(INTERNALS)].flatten().tolist()
        return {name: value for name, value in zip(FEATURES, means, strict=True) if np.isfinite(value)}

    def summary(self) -> dict[str, float | None] | None:
        """Mean |z| of each statistic over tokens, layers and projections; None without a profile or a token."""
        if not self.shown or self.reader.norms is None or not self.counts.any():
            return None
        means = self._means(axis=(0, 1))[len(INTERNALS) :].round(DIGITS).tolist()
        return {name: value if np.isfinite(value) else None for name, value in zip(INTERNALS, means, strict=True)}

    def _means(self, axis: int | tuple[int, ...]) -> Array:
        """Means over all tokens and along these axes; NaN without values."""
        with np.errstate(invalid="ignore"):
            means: Array = self.sums.sum(axis=axis) / self.counts.sum(axis=axis)
        return means
