"""Which ensembles a request's answers are scored under, with an ensemble that keeps book."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from server.calibration import Calibration
from server.request_scores import RequestScores, RunningChoice
from server.schemas import UncertaintyOptions
from server.scoring import ChoiceScore, EnsembleScore
from server.tokens import TokenScore


class Ensemble:
    """Says that the members are as unsure as they are many."""

    def __init__(self, unavailable: str | None = None) -> None:
        self.asked: list[int] = []
        self.unavailable = unavailable

    async def score(self, answer: Any, members: int) -> EnsembleScore:
        self.asked.append(members)
        return EnsembleScore(members, [members / 10], [0.0], 1)


READS_ENSEMBLE = Calibration(
    "probe",
    "f" * 64,
    "base",
    ["max_epistemic"],
    [1.0],
    0.0,
    lowest=[0.0],
    highest=[9.0],
    ensemble={"members": 8, "rate": 0.03},
)
READS_LOGITS = Calibration("probe", "f" * 64, "base", ["max_entropy"], [1.0], 0.0, lowest=[0.0], highest=[9.0])


def summary(ensemble: Ensemble, calibration: Calibration | None, wanted: int | None) -> Any:
    request: Any = SimpleNamespace(
        uncertainty=UncertaintyOptions(ensemble=wanted),
        max_tokens=5,
        skip_special_tokens=True,
        spaces_between_special_tokens=True,
        include_stop_str_in_output=False,
        cache_salt=None,
        priority=0,
    )
    scores = RequestScores(request, "m", SimpleNamespace(ensemble=ensemble), None, generated=False)
    scores.calibration = calibration
    reader: Any = None
    score = ChoiceScore.of([TokenScore(-0.1, 0.4, 0.7, 0.8, "w")])
    scores.choices[0] = RunningChoice(reader, [1], None, score, token_ids=[2])
    asyncio.run(scores.rescore_all())
    return scores.summary(0)


@pytest.mark.parametrize(
    ("calibration", "wanted", "asked", "shown"),
    [
        (None, None, [], None),
        (None, 4, [4], 4),
        (READS_LOGITS, None, [], None),
        (READS_ENSEMBLE, None, [8], 8),
        (READS_ENSEMBLE, 8, [8], 8),
        (READS_ENSEMBLE, 4, [4, 8], 4),
    ],
)
def test_an_ensemble_is_asked_where_the_request_or_the_calibration_wants_it(
    calibration: Calibration | None, wanted: int | None, asked: list[int], shown: int | None
) -> None:
    """The risk is that of the number of members that the calibration was fitted for, whatever the request asks."""
    ensemble = Ensemble()
    found = summary(ensemble, calibration, wanted)
    assert ensemble.asked == asked
    assert found.ensemble == shown
    assert found.max_epistemic == (shown and shown / 10)
    if calibration is READS_ENSEMBLE:
        assert found.risk == pytest.approx(calibration.risk({"max_epistemic": 0.8}))


def test_an_engine_without_an_ensemble_gives_no_risk_where_it_needs_one() -> None:
    found = summary(Ensemble("compiled"), READS_ENSEMBLE, None)
    assert (found.risk, found.calibrated, found.ensemble) == (None, False, None)
    assert summary(Ensemble("compiled"), READS_LOGITS, None).calibrated
