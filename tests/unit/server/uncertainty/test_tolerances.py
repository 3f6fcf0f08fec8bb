"""The tolerances of other tests: bounds that hold, and are not much wider than they must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from model_impl.reference.model import load_reference
from server.uncertainty.calibration import Calibration, load_calibration
from server.uncertainty.features import GROUPS
from server.uncertainty.score import ChoiceScore
from server.uncertainty.tokens import TokenScore
from tests.support.demo_server import DEMO
from tests.support.exact import exact_statistics
from tests.support.grown import grown_checkpoint
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import Moved, statistics_tolerance


@st.composite
def logits_and_moved(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, float]:
    """float64 [T, V] logits, sure and unsure ones, others, and by how much these differ at most."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0]))
    logits = scale * torch.randn(draw(st.integers(1, 12)), draw(st.integers(2, 40)), generator=generator).double()
    e = draw(st.sampled_from([1e-4, 1e-3, 1e-2, 0.3]))
    match draw(st.sampled_from(["random", "signs", "surer"])):
        case "random":
            moves = 2 * torch.rand(logits.shape, generator=generator, dtype=torch.float64) - 1
        case "signs":
            moves = torch.randn(logits.shape, generator=generator).double().sign()
        case _:  # where the entropy falls fastest
            surprise = -logits.log_softmax(-1)
            moves = (exact_statistics(logits)[..., :1] - surprise).sign()
    return logits, logits + e * moves, e


@settings(deadline=None, max_examples=300)
@given(logits_and_moved())
def test_statistics_move_by_no_more_than_the_tolerance(drawn: tuple[torch.Tensor, torch.Tensor, float]) -> None:
    logits, moved, e = drawn
    before, after = exact_statistics(logits), exact_statistics(moved)
    assert ((after - before).abs() <= statistics_tolerance(before, torch.full(before.shape[:-1], e).double())).all()
    assert (moved.log_softmax(-1) - logits.log_softmax(-1)).abs().max() <= 2 * e + 1e-12


def test_the_tolerance_of_the_entropy_is_reached() -> None:
    """Nearly: for two words of which one is likely, by the move that makes it likelier."""
    logits, e = torch.tensor([[2.0, 0.0]]).double(), 1e-3
    moved = logits + torch.tensor([[e, -e]]).double()
    before, after = exact_statistics(logits), exact_statistics(moved)
    allowed = statistics_tolerance(before, torch.tensor([e]).double())
    assert (before - after)[0, 0] > 0.6 * allowed[0, 0]


def scores_of(logits: torch.Tensor, ids: list[int]) -> list[TokenScore]:
    rows = zip(logits.log_softmax(-1), exact_statistics(logits).tolist(), ids, strict=True)
    reported: dict[str, Any] = {"epistemic": 0.01, "growth": {"base": 2.0, "chemistry": -0.5}}
    return [TokenScore(float(row[word]), *statistics, text=f" w{word}", **reported) for row, statistics, word in rows]


def calibrations() -> list[Calibration]:
    """The demo's, of the probe, and one of the other methods each."""
    names = ("mean_entropy", "min_margin", "standardised_surprisal", "tokens")
    line = Calibration("logistic", "f", "base", names, (2.0, -3.0, 1.0, -0.1), -1.0, (0.1, 0, -2, 0), (2, 0.9, 2, 9))
    steps = Calibration("isotonic", "f", "base", ["max_entropy"], knots=[0.5, 0.50001, 2], risks=[0.1, 0.6, 0.9])
    return [line, steps, load_calibration(DEMO / "calibration.json"), load_calibration(DEMO / "calibration-base.json")]


CALIBRATIONS = calibrations()


@settings(deadline=None, max_examples=200)
@given(logits_and_moved(), st.integers(0, 99))
def test_features_and_risks_stay_within_their_bounds(
    drawn: tuple[torch.Tensor, torch.Tensor, float], seed: int
) -> None:
    logits, moved, e = drawn
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(logits.shape[-1], (len(logits),), generator=generator).tolist()
    answer = Moved(scores_of(logits, ids), [e] * len(ids))
    found = ChoiceScore.of(scores_of(moved, ids)).features()
    assert found is not None
    bounds = answer.features()
    assert bounds.keys() == {name for group in ("logits", "closed_form", "growth") for name in GROUPS[group]}
    for name, (low, high) in bounds.items():
        assert low <= found[name] <= high, name
    for calibration in CALIBRATIONS:
        low, high = answer.risk(calibration)
        assert 0 <= low <= calibration.risk(found) <= high <= 1


def test_bounds_of_float32s_rounding_are_narrow() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(8, 40, generator=generator).double()
    answer = Moved(scores_of(logits, [0] * 8), [1e-5] * 8)
    for calibration in CALIBRATIONS:
        low, high = answer.risk(calibration)
        assert high - low < 0.01


class OtherOrder(TorchDispatchMode):
    """Sums the products of matrices in another order each time."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ == "mm":
            a, b = args
            order = torch.randperm(a.shape[-1], generator=self.generator)
            args = (a[:, order].contiguous(), b[order].contiguous())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["demo", "tiny"])
def test_orders_of_summation_move_logits_within_the_tolerance(name: str, tmp_path: Path) -> None:
    model = load_reference(DEMO) if name == "demo" else grown_checkpoint(tmp_path / "m", 2)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(model.config.vocab_size, (2, 40), generator=generator)
    allowed = logit_tolerance(model, ids)
    with torch.no_grad():
        plain = model(ids)
        others = [torch.cat([model(ids[:, : i + 1])[:, -1:] for i in range(ids.shape[1])], dim=1)]  # one by one
        for seed in range(8):
            with OtherOrder(seed):
                others.append(model(ids))
    differences = torch.stack([(other - plain).abs().amax(-1) for other in others])
    assert (differences <= allowed).all()
    assert (differences.amax(0) > allowed / 100).float().mean() > 0.9
