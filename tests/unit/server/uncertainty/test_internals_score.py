"""Internals in answers: names, standardised values, averages, and never a NaN."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model_impl.config import PROJECTIONS
from model_impl.wire import INTERNALS
from server.uncertainty.internals import FEATURES, Array, InternalsReader, InternalsScore, TokenInternals
from server.uncertainty.profile import Profile

LAYERS, STAGES = 3, {0: "base", 1: "grown-1"}
PLACES = 3  # two stages and a delta
TABLE = (LAYERS, len(PROJECTIONS), len(INTERNALS))


def columns(seed: int) -> Array:
    """As the engine reports them: float64 [layers, projections, statistics and places], the last place unused."""
    rows = np.random.default_rng(seed).uniform(0.5, 2, (LAYERS, len(PROJECTIONS), len(INTERNALS) + PLACES))
    rows[..., -1] = 0
    return rows


def entry(rows: Array) -> Any:
    """The fields of a `ScoredLogprob` that the score reads."""
    return SimpleNamespace(provenance=None, internal_columns=rows.flatten().tolist(), growth=None, internals=None)


def profile(**changes: Any) -> Profile:
    draw = np.random.default_rng(7)
    tables = {"mean": draw.normal(size=TABLE).tolist(), "std": draw.uniform(1, 2, TABLE).tolist()}
    return Profile("f" * 64, "grown-1", **(tables | changes), data={})


def reader(profile: Profile | None = None, stages: dict[int, str] = STAGES) -> InternalsReader:
    return InternalsReader(LAYERS, PLACES, stages, profile)


def token(reader: InternalsReader, rows: Array) -> dict[str, Any]:
    return reader.token(reader.read(rows.flatten().tolist()))


def test_every_number_under_its_name() -> None:
    rows, against = columns(0), profile()
    shown = token(reader(against), rows)
    assert TokenInternals(**shown).model_dump() == shown
    for layer, by_projection in enumerate(shown["layers"]):
        for p, projection in enumerate(PROJECTIONS):
            found = by_projection[projection]
            for i, name in enumerate(INTERNALS):
                value = rows[layer, p, i]
                z = (value - against.mean[layer][p][i]) / against.std[layer][p][i]
                assert found[name] == pytest.approx(value, abs=1e-6)
                assert found[f"{name}_z"] == pytest.approx(z, abs=1e-6)
            parts = rows[layer, p, len(INTERNALS) :]
            assert found["growth"] == pytest.approx(
                {"base": parts[0] / parts.sum(), "grown-1": parts[1] / parts.sum()}, abs=1e-6
            )


def test_without_a_profile_and_without_growth() -> None:
    shown = token(reader(stages={}), columns(0))
    assert set(shown["layers"][0]["ffn"]) == {*INTERNALS, "growth"}
    assert shown["layers"][0]["ffn"]["growth"] is None


def test_what_is_not_defined_is_null() -> None:
    rows, against = columns(0), profile(std=np.zeros(TABLE).tolist())
    rows[0, 0, :2] = math.nan, -math.inf
    rows[1, 1, len(INTERNALS) :] = 0
    shown = token(reader(against), rows)
    json.dumps(shown, allow_nan=False)
    assert [shown["layers"][0]["query"][name] for name in INTERNALS[:2]] == [None, None]
    assert shown["layers"][2]["ffn"]["kurtosis_z"] is None
    assert shown["layers"][1]["key"]["growth"] is None
    score = InternalsScore(reader(against))
    score.add(entry(rows))
    assert score.summary() == dict.fromkeys(INTERNALS)
    assert all(map(math.isfinite, score.features().values()))


def test_averages_over_an_answer() -> None:
    tokens, against = [columns(seed) for seed in range(4)], profile()
    score = InternalsScore(reader(against))
    for rows in tokens:
        score.add(entry(rows))
    statistics = np.stack(tokens)[..., : len(INTERNALS)]
    z = (statistics - np.array(against.mean)) / np.array(against.std)
    assert score.summary() == pytest.approx(dict(zip(INTERNALS, np.abs(z).mean((0, 1, 2)), strict=True)), abs=1e-6)
    features = score.features()
    assert tuple(features) == FEATURES
    assert features["value_kurtosis"] == pytest.approx(statistics[:, :, 2, 1].mean())
    assert InternalsScore(reader()).summary() is InternalsScore(reader(against)).summary() is None
    assert InternalsScore(reader()).features() == {}


def test_an_entry_shows_what_it_has() -> None:
    bare: Any = SimpleNamespace(provenance=[1.0, 3.0, 0.0], internal_columns=None, growth=None, internals=None)
    InternalsScore(reader()).add(bare)
    assert bare.growth == {"base": 0.25, "grown-1": 0.75}
    assert bare.internals is None
    full = entry(columns(0))
    InternalsScore(reader()).add(full)
    assert full.internals == token(reader(), columns(0))
