"""From a choice's tokens to `choices[].uncertainty`. Pure: no vLLM, no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.schemas import Uncertainty

LOWEST_LOGPROB = -9999.0
"""What OpenAI's API reports for a probability of zero; JSON has no infinity."""


@dataclass
class ChoiceScore:
    """Running summary of one choice, fed token by token; the same whether tokens come one by one or at once."""

    tokens: int = 0
    entropy_sum: float = 0.0
    variance_sum: float = 0.0
    max_entropy: float | None = None
    first_token_entropy: float | None = None
    min_logprob: float | None = None
    provenance: dict[str, float] = field(default_factory=dict)

    def add(
        self, logprob: float, entropy: float, variance: float, provenance: Mapping[str, float] | None = None
    ) -> None:
        """One generated token: its raw logprob, its distribution's entropy [nats] and variance [nats^2], and what
        each growth stage contributed (sum of w^2 ||v||^2 over its parameter tokens)."""
        logprob = max(logprob, LOWEST_LOGPROB)
        if self.max_entropy is None or self.min_logprob is None:
            self.first_token_entropy = self.max_entropy = entropy
            self.min_logprob = logprob
        self.tokens += 1
        self.entropy_sum += entropy
        self.variance_sum += variance
        self.max_entropy = max(self.max_entropy, entropy)
        self.min_logprob = min(self.min_logprob, logprob)
        for stage, contribution in (provenance or {}).items():
            self.provenance[stage] = self.provenance.get(stage, 0.0) + contribution

    def summary(self) -> Uncertainty:
        """What the response carries; null where there was no token."""
        return Uncertainty(
            mean_entropy=self.entropy_sum / self.tokens if self.tokens else None,
            max_entropy=self.max_entropy,
            first_token_entropy=self.first_token_entropy,
            mean_variance=self.variance_sum / self.tokens if self.tokens else None,
            min_logprob=self.min_logprob,
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
