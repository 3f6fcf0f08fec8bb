"""The largest difference of statistics and risks where logits differ by at most `e`.

`tests.support.rounding` tells `e` of a model.

With s_i = -ln p_i, H = E s the entropy and V = Var s the variance under p, let the logits move from z to z + t d, with
t from 0 to 1 and |d_i| <= e. Then

    d/dt ln p_i = d_i - E d                         so |ln p_i' - ln p_i| <= 2 e
    dH/dt = Cov(s, d)                               so |dH/dt| <= e sqrt(V), as d has a standard deviation of at most e
    dV/dt = E (s - H)^2 (d - E d) - 2 Cov(s, d)     so |dV/dt| <= 2 e (V + sqrt(V)), as |d_i - E d| <= 2 e

By the last, r = sqrt(V) + 1 has |dr/dt| <= e r, and never exceeds r(0) exp(e t). Hence

    |sqrt(V') - sqrt(V)| <= r (exp(e) - 1), which bounds |V' - V|
    |H' - H| <= the integral of e (r exp(e t) - 1) = r (exp(e) - 1) - e

and a margin, the difference of the two largest probabilities, moves by at most e: its derivative is Cov(f, d) with f 1
on one of them, -1 on the other and 0 elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from model_impl.wire import STATISTICS
from server.uncertainty.calibration import Calibration, sigmoid
from server.uncertainty.features import LOG, term
from server.uncertainty.score import LEAST_VARIANCE, ChoiceScore
from server.uncertainty.tokens import TokenScore

Bounds = tuple[float, float]
"""The lowest and the highest value."""

READING = 1e-5
"""Relative and absolute: what float32 statistics may differ by on equal logits. Their own tests hold them to less."""

REPORTED, LEAST_REPORTED = 1e-3, 1e-6
"""Relative and absolute: what the closed form may differ by between two float32 computations, and growth by the first.
The engine's tests hold both to a tenth of it."""


def statistics_tolerance(statistics: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """float64 [..., 3] of the `STATISTICS` [..., 3] of distributions whose logits move by `e` [...]."""
    assert STATISTICS == ("entropy", "variance", "margin")
    deviation = statistics[..., 1].double().clamp_min(0).sqrt()
    grown = (deviation + 1) * torch.expm1(e)
    moved = [grown - e, (deviation + grown).square() - deviation.square(), e]
    return torch.stack(moved, dim=-1) + READING * (1 + statistics.double().abs())


def reported_ends(token: TokenScore, sign: int) -> TokenScore:
    """The token with the lowest (`sign` -1) or highest (1) values of what the engine reports of it."""
    epistemic, growth = token.epistemic, token.growth
    return token._replace(
        epistemic=epistemic and max(0.0, epistemic + sign * (REPORTED * epistemic + LEAST_REPORTED)),
        growth=growth and {stage: nats + sign * REPORTED * (1 + abs(nats)) for stage, nats in growth.items()},
    )


def logprob_tolerance(e: torch.Tensor) -> torch.Tensor:
    return 2 * e


def assert_within(found: torch.Tensor, expected: torch.Tensor, tolerance: torch.Tensor | float) -> None:
    """Element by element; says how far beyond the worst is."""
    assert found.shape == expected.shape
    excess = (found.double() - expected.double()).abs() - tolerance
    assert (excess <= 0).all(), f"beyond the tolerance by {excess.max().item():.3g}, at {int(excess.argmax())}"


def assert_statistics_within(found: torch.Tensor, expected: torch.Tensor, e: torch.Tensor) -> None:
    """Statistics [..., 3] of two computations whose logits differ by at most `e` [...]."""
    assert_within(found, expected, statistics_tolerance(expected, e))


@dataclass(frozen=True)
class Moved:
    """The tokens of an answer, and the logit tolerance of the position that each was drawn from."""

    tokens: Sequence[TokenScore]
    e: Sequence[float]

    def ends(self) -> tuple[list[TokenScore], list[TokenScore]]:
        """The lowest and the highest values of each token, clipped to those that a distribution can have."""
        low, high = [], []
        for token, e in zip(self.tokens, self.e, strict=True):
            values = torch.tensor([token.entropy, token.variance, token.margin], dtype=torch.float64)
            entropy, variance, margin = statistics_tolerance(values, torch.tensor(e, dtype=torch.float64)).tolist()
            logprob = 2 * e + READING * (1 + abs(token.logprob))
            low.append(
                reported_ends(token, -1)._replace(
                    logprob=token.logprob - logprob,
                    entropy=max(0.0, token.entropy - entropy),
                    variance=max(0.0, token.variance - variance),
                    margin=max(0.0, token.margin - margin),
                )
            )
            high.append(
                reported_ends(token, 1)._replace(
                    logprob=min(0.0, token.logprob + logprob),
                    entropy=token.entropy + entropy,
                    variance=token.variance + variance,
                    margin=min(1.0, token.margin + margin),
                )
            )
        return low, high

    def features(self) -> dict[str, Bounds]:
        """Bounds of the features that need no ensemble.

        Most grow with the values of every token, and are evaluated at both ends. The peak is any token that may have
        the highest entropy.
        """
        low, high = self.ends()
        lowest, highest = ChoiceScore.of(low).features(), ChoiceScore.of(high).features()
        assert lowest is not None and highest is not None
        bounds = {name: (lowest[name], highest[name]) for name in lowest}
        excess = [
            sum(-one.logprob - other.entropy for one, other in zip(*pair, strict=True))
            for pair in ((high, high), (low, low))
        ]
        bounds["standardised_surprisal"] = quotient_bounds(
            excess, [math.sqrt(max(sum(t.variance for t in part), LEAST_VARIANCE)) for part in (low, high)]
        )
        floor = max(token.entropy for token in low)
        peaks = [i for i, token in enumerate(high) if token.entropy >= floor]
        values = {
            "peak_variance": [part[i].variance for i in peaks for part in (low, high)],
            "peak_margin": [part[i].margin for i in peaks for part in (low, high)],
            "peak_logprob": [part[i].logprob for i in peaks for part in (low, high)],
            "peak_position": [i / len(low) for i in peaks],
        }
        if "peak_closed_form" in bounds:
            values["peak_closed_form"] = [part[i].epistemic or 0.0 for i in peaks for part in (low, high)]
        assert values.keys() == {name for name in bounds if name.startswith("peak")}
        return bounds | {name: (min(found), max(found)) for name, found in values.items()}

    def risk(self, calibration: Calibration) -> Bounds:
        return risk_bounds(calibration, self.features())


def quotient_bounds(numerator: Sequence[float], denominator: Sequence[float]) -> Bounds:
    """The bounds of a quotient of positive denominators."""
    found = [above / below for above in numerator for below in denominator]
    return min(found), max(found)


def risk_bounds(calibration: Calibration, features: Mapping[str, Bounds]) -> Bounds:
    """Bounds of the risk for any features within these: every term is monotonic in its feature.

    A doubt and its logarithm lie on one side of certainty, as the ends do.
    """
    if calibration.method == "isotonic":
        (name,) = calibration.features
        low, high = (calibration.risk({name: x}) for x in features[name])
        return low, high
    ends = []
    lines = zip(calibration.features, calibration.coefficients, calibration.lowest, calibration.highest, strict=True)
    for name, coefficient, lowest, highest in lines:
        feature = name.removeprefix(LOG)
        values = (term({feature: x}, name) for x in features[feature])
        ends.append(sorted(coefficient * min(max(x, lowest), highest) for x in values))
    low, high = (sigmoid(calibration.intercept + math.fsum(parts)) for parts in zip(*ends, strict=True))
    return low, high


def ensemble_tolerance(e: torch.Tensor, words: int) -> torch.Tensor:
    """float64 [..., 2] of epistemic and aleatoric uncertainty, where the logits of each member move by `e` [...].

    Each probability of a member moves by a factor of at most exp(2 e), and so does that of their mean: its entropy
    moves as if its logits moved by 2 e. Over n words V <= (ln(n - 1) / 2)^2 + 1 (Reeb and Wolf 2015).
    """
    most = 1 + math.sqrt((math.log(words - 1) / 2) ** 2 + 1)
    aleatoric = most * torch.expm1(e) - e
    mixture = most * torch.expm1(2 * e) - 2 * e
    return torch.stack([mixture + aleatoric, aleatoric], dim=-1) + READING * (1 + math.log(words))
