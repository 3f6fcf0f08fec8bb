"""From a choice's tokens to `choices[].uncertainty`. Pure: no vLLM, no HTTP."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.calibration import FEATURES, Calibration
from server.schemas import Uncertainty

LOWEST_LOGPROB = -9999.0
"""What OpenAI's API reports for a probability of zero; JSON has no infinity."""

WINDOW = 8
"""Tokens in the window whose mean entropy is the highest of the answer."""

LEAST_VARIANCE = 1e-6
"""nats^2. Where the tokens of an answer have less variance together, s - H is float32's rounding."""


@dataclass
class ChoiceScore:
    """Running summary of one choice, fed token by token; the same whether tokens come one by one or at once."""

    tokens: int = 0
    entropy_sum: float = 0.0
    variance_sum: float = 0.0
    margin_sum: float = 0.0
    surprisal_excess: float = 0.0
    max_entropy: float | None = None
    first_token_entropy: float | None = None
    worst_window_entropy: float | None = None
    min_logprob: float | None = None
    min_margin: float = 1.0
    window: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    provenance: dict[str, float] = field(default_factory=dict)

    def add(
        self,
        logprob: float,
        entropy: float,
        variance: float,
        margin: float,
        provenance: Mapping[str, float] | None = None,
    ) -> None:
        """One generated token: its raw logprob; its distribution's entropy [nats], variance [nats^2] and margin; and
        what each growth stage contributed (sum of w^2 ||v||^2 over its parameter tokens)."""
        logprob = max(logprob, LOWEST_LOGPROB)
        if self.max_entropy is None or self.min_logprob is None:
            self.first_token_entropy = self.max_entropy = entropy
            self.min_logprob = logprob
        self.tokens += 1
        self.entropy_sum += entropy
        self.variance_sum += variance
        self.margin_sum += margin
        self.surprisal_excess += -logprob - entropy
        self.max_entropy = max(self.max_entropy, entropy)
        self.min_logprob = min(self.min_logprob, logprob)
        self.min_margin = min(self.min_margin, margin)
        self.window.append(entropy)
        mean = math.fsum(self.window) / len(self.window)
        # Until the first window is full it is the only one.
        if self.worst_window_entropy is None or self.tokens <= WINDOW or mean > self.worst_window_entropy:
            self.worst_window_entropy = mean
        for stage, contribution in (provenance or {}).items():
            self.provenance[stage] = self.provenance.get(stage, 0.0) + contribution

    @property
    def standardised_surprisal(self) -> float | None:
        """sum(s - H) / sqrt(sum V) over the tokens, with s = -ln p of the token that was chosen.

        How many standard deviations the answer is more surprising than the model's own draws are on average; below 0
        for answers that follow the likeliest tokens.
        """
        return self.surprisal_excess / math.sqrt(max(self.variance_sum, LEAST_VARIANCE)) if self.tokens else None

    def features(self) -> dict[str, float] | None:
        """What calibrations read, by the names in `FEATURES`, all finite; None where there is nothing to judge: for an
        answer without tokens, or from a model whose logits are not finite."""
        if not self.tokens:
            return None
        values = (
            self.entropy_sum / self.tokens,
            self.max_entropy,
            self.first_token_entropy,
            self.worst_window_entropy,
            self.min_logprob,
            self.variance_sum / self.tokens,
            self.margin_sum / self.tokens,
            self.min_margin,
            self.standardised_surprisal,
            float(self.tokens),
        )
        features = {name: value for name, value in zip(FEATURES, values, strict=True) if value is not None}
        # A maximum or minimum can skip a NaN; sums cannot, so checking all of them finds it.
        return features if all(map(math.isfinite, features.values())) else None

    def summary(self, calibration: Calibration | None = None, abstain_above: float | None = None) -> Uncertainty:
        """What the response carries; null where there was no token, and a risk only with a calibration.

        `abstain` is null unless there is a risk and the request gave a limit for it.
        """
        features = self.features()
        judged = calibration if features else None
        risk = judged.risk(features) if judged and features else None
        return Uncertainty(
            risk=risk,
            calibrated=judged is not None,
            calibration=judged.name if judged else None,
            abstain=None if risk is None or abstain_above is None else risk > abstain_above,
            mean_entropy=self.entropy_sum / self.tokens if self.tokens else None,
            max_entropy=self.max_entropy,
            first_token_entropy=self.first_token_entropy,
            worst_window_entropy=self.worst_window_entropy,
            mean_variance=self.variance_sum / self.tokens if self.tokens else None,
            min_logprob=self.min_logprob,
            standardised_surprisal=self.standardised_surprisal,
            tokens=self.tokens,
            growth=shares(self.provenance),
        )


def shares(provenance: Mapping[str, float]) -> dict[str, float] | None:
    """Each growth stage's part of the whole, summing to 1: "which growth answered".

    sum over Pattention layers, and over tokens, of w_i^2 ||v_i||^2 by the stage of parameter token i, normalised:
    the squared length of what each token adds to a layer's output y = sum_i w_i v_i (our measure, design notes).
    """
    total = sum(provenance.values())
    return {stage: contribution / total for stage, contribution in provenance.items()} if total else None
