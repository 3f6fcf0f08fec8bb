"""From a choice's tokens to `choices[].uncertainty`. Pure: no vLLM, no HTTP."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.calibration import Calibration
from server.features import AGGREGATES, GROUPS, LOWEST_LOGPROB, details
from server.schemas import Span, Uncertainty
from server.spans import doubted_spans
from server.tokens import TokenScore, placed

WINDOW = 8
"""Tokens in the window whose mean entropy is the highest of the answer."""

LEAST_VARIANCE = 1e-6
"""nats^2. Where the tokens of an answer have less variance together, s - H is float32's rounding."""


@dataclass(frozen=True)
class EnsembleScore:
    """What the parameter-token ensemble says of an answer: per token in nats, None where a token has no distribution.

    `computed` counts the tokens that the members ran through the model.
    """

    members: int
    epistemic: list[float | None]
    aleatoric: list[float | None]
    computed: int

    def features(self) -> dict[str, float]:
        """What a calibration may read of it, see `server.features`; empty for an answer without distributions."""
        summary = self.summary()
        return {name: summary[name] for name in GROUPS["ensemble"] if summary[name] is not None}

    def summary(self) -> dict[str, Any]:
        """The fields of `Uncertainty` that come from it."""
        epistemic = [value for value in self.epistemic if value is not None]
        aleatoric = [value for value in self.aleatoric if value is not None]
        return {
            "ensemble": self.members,
            "ensemble_tokens": self.computed,
            "epistemic": self.epistemic,
            "aleatoric": self.aleatoric,
            "mean_epistemic": math.fsum(epistemic) / len(epistemic) if epistemic else None,
            "max_epistemic": max(epistemic, default=None),
            "mean_aleatoric": math.fsum(aleatoric) / len(aleatoric) if aleatoric else None,
        }


@dataclass
class ChoiceScore:
    """Running summary of one choice, fed token by token; the same whether tokens come one by one or at once."""

    tokens: int = 0
    entropy_sum: float = 0.0
    variance_sum: float = 0.0
    margin_sum: float = 0.0
    surprisal_excess: float = 0.0
    max_entropy: float | None = None
    worst_window_entropy: float | None = None
    min_logprob: float | None = None
    min_margin: float = 1.0
    window: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    provenance: dict[str, float] = field(default_factory=dict)
    scores: list[TokenScore] = field(default_factory=list)

    @classmethod
    def of(cls, tokens: Iterable[TokenScore]) -> ChoiceScore:
        score = cls()
        for token in tokens:
            score.add(token)
        return score

    def add(self, token: TokenScore) -> None:
        """The next generated token."""
        logprob, entropy = max(token.logprob, LOWEST_LOGPROB), token.entropy
        if self.max_entropy is None or self.min_logprob is None:
            self.max_entropy, self.min_logprob = entropy, logprob
        self.scores.append(token)
        self.tokens += 1
        self.entropy_sum += entropy
        self.variance_sum += token.variance
        self.margin_sum += token.margin
        self.surprisal_excess += -logprob - entropy
        self.max_entropy = max(self.max_entropy, entropy)
        self.min_logprob = min(self.min_logprob, logprob)
        self.min_margin = min(self.min_margin, token.margin)
        self.window.append(entropy)
        mean = math.fsum(self.window) / len(self.window)
        # Until the first window is full it is the only one.
        if self.worst_window_entropy is None or self.tokens <= WINDOW or mean > self.worst_window_entropy:
            self.worst_window_entropy = mean
        for stage, contribution in (token.provenance or {}).items():
            self.provenance[stage] = self.provenance.get(stage, 0.0) + contribution

    @property
    def first_token_entropy(self) -> float | None:
        """Of the first token with a letter or digit (or with a part of one); of the first token where there is none."""
        first = next((token.score for token in placed(self.scores) if token.is_content), None)
        return first.entropy if first else self.scores[0].entropy if self.scores else None

    @property
    def standardised_surprisal(self) -> float | None:
        """sum(s - H) / sqrt(sum V) over the tokens, with s = -ln p of the token that was chosen.

        How many standard deviations the answer is more surprising than the model's own draws are on average; below 0
        for answers that follow the likeliest tokens.
        """
        return self.surprisal_excess / math.sqrt(max(self.variance_sum, LEAST_VARIANCE)) if self.tokens else None

    def features(self, further: Mapping[str, float] | None = None) -> dict[str, float] | None:
        """What calibrations read, by the names in `server.features`, all finite; no groups that the tokens lack.
        `further` are those of the ensemble and of the internals, where they are known.

        None where there is nothing to judge: for an answer without tokens, or from a model whose logits are not finite.
        """
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
        features = {name: value for name, value in zip(AGGREGATES, values, strict=True) if value is not None}
        features |= details(self.scores)
        if len(self.provenance) > 1 and (parts := shares(self.provenance)):
            features["newest_stage_share"] = list(parts.values())[-1]
        features |= further or {}
        # A maximum or minimum can skip a NaN; sums cannot, so checking all of them finds it.
        return features if all(map(math.isfinite, features.values())) else None

    def summary(
        self,
        calibration: Calibration | None = None,
        abstain_above: float | None = None,
        text: str | None = None,
        ensemble: EnsembleScore | None = None,
        further: Mapping[str, float] | None = None,
    ) -> Uncertainty:
        """What the response carries; null where there was no token, and a risk only with a calibration.

        `abstain` is null unless there is a risk and the request gave a limit for it; `spans` is unless the `text` that
        the tokens made is given, and what comes from the `ensemble` is unless one was asked. `further`: see `features`.
        """
        features = self.features(further)
        judged = calibration if calibration and features and calibration.judges(features) else None
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
            spans=None if text is None else self.spans(text, judged, risk, ensemble.epistemic if ensemble else None),
            **(ensemble.summary() if ensemble else {}),
        )

    def spans(
        self,
        text: str,
        calibration: Calibration | None = None,
        risk: float | None = None,
        epistemic: Sequence[float | None] | None = None,
    ) -> list[Span]:
        """The words of `text` to doubt; `risk` is the answer's."""
        return [
            Span(
                start=span.start,
                end=span.end,
                text=text[span.start : span.end],
                risk=_part_risk(span.tokens, calibration, risk),
                reason=span.reason,
            )
            for span in doubted_spans(self.scores, text, epistemic)
        ]


def _part_risk(tokens: Sequence[TokenScore], calibration: Calibration | None, whole: float | None) -> float | None:
    """What the calibration says of the tokens alone; a part cannot be likelier wrong than the whole."""
    features = ChoiceScore.of(tokens).features() if calibration else None
    if calibration is None or whole is None or features is None or not calibration.judges(features):
        return None
    return min(whole, calibration.risk(features))


def shares(provenance: Mapping[str, float]) -> dict[str, float] | None:
    """Each growth stage's part of the whole, summing to 1: "which growth answered".

    sum over Pattention layers, and over tokens, of w_i^2 ||v_i||^2 by the stage of parameter token i, normalised:
    the squared length of what each token adds to a layer's output y = sum_i w_i v_i (our measure, design notes).
    """
    total = sum(provenance.values())
    return {stage: contribution / total for stage, contribution in provenance.items()} if total else None
