"""From a choice's tokens to `choices[].uncertainty`. Pure: no vLLM, no HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.uncertainty.calibration import Calibration
from server.uncertainty.features import AGGREGATES, GROUPS, LOWEST_LOGPROB, details
from server.uncertainty.spans import doubted_spans
from server.uncertainty.summary import Span, Uncertainty
from server.uncertainty.tokens import TokenScore, placed

SHOWN = (
    "mean_entropy",
    "max_entropy",
    "first_token_entropy",
    "worst_window_entropy",
    "mean_variance",
    "min_logprob",
    "standardised_surprisal",
)
"""The aggregates that a response tells by themselves."""

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
        """What a calibration may read of it, see `server.uncertainty.features`; empty for an answer without
        distributions."""
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
    """The tokens of one choice, and what they come to."""

    scores: list[TokenScore] = field(default_factory=list)

    @classmethod
    def of(cls, tokens: Iterable[TokenScore]) -> ChoiceScore:
        return cls(list(tokens))

    def add(self, token: TokenScore) -> None:
        """The next generated token. What tokens come to is summed up at the end: none is to cost more than this."""
        self.scores.append(token)

    @property
    def first_token_entropy(self) -> float | None:
        """Of the first token with a letter or digit (or with a part of one); of the first token where there is none."""
        first = next((token.score for token in placed(self.scores) if token.is_content), None)
        return first.entropy if first else self.scores[0].entropy if self.scores else None

    def aggregates(self) -> dict[str, Any]:
        """The features of `AGGREGATES`; empty where there was no token.

        The standardised surprisal is sum(s - H) / sqrt(sum V) over the tokens, with s = -ln p of the token that was
        chosen: how many standard deviations the answer is more surprising than the model's own draws are on average;
        below 0 for answers that follow the likeliest tokens.
        """
        if not self.scores:
            return {}
        count = len(self.scores)
        logprobs = [max(token.logprob, LOWEST_LOGPROB) for token in self.scores]
        entropies = [token.entropy for token in self.scores]
        margins = [token.margin for token in self.scores]
        variance = sum(token.variance for token in self.scores)
        # An answer that is shorter than a window is one.
        windows = (entropies[start : start + WINDOW] for start in range(max(count - WINDOW, 0) + 1))
        surprisal_excess = sum(-logprob - entropy for logprob, entropy in zip(logprobs, entropies, strict=True))
        values = (
            sum(entropies) / count,
            max(entropies),
            self.first_token_entropy,
            max(map(math.fsum, windows)) / min(count, WINDOW),
            min(logprobs),
            variance / count,
            sum(margins) / count,
            min(margins),
            surprisal_excess / math.sqrt(max(variance, LEAST_VARIANCE)),
            float(count),
        )
        return dict(zip(AGGREGATES, values, strict=True))

    def provenance(self) -> dict[str, float]:
        """What each growth stage contributed to all tokens, as `TokenScore.provenance`."""
        sums: dict[str, float] = {}
        for token in self.scores:
            for stage, contribution in (token.provenance or {}).items():
                sums[stage] = sums.get(stage, 0.0) + contribution
        return sums

    def features(self, further: Mapping[str, float] | None = None) -> dict[str, float] | None:
        """What calibrations read, by the names in `server.uncertainty.features`, all finite; no groups that the tokens
        lack. `further` are those of the ensemble and of the internals, where they are known.

        None where there is nothing to judge: for an answer without tokens, or from a model whose logits are not finite.
        """
        return self._features(self.aggregates(), self.provenance(), further)

    def _features(
        self, aggregates: Mapping[str, float], provenance: Mapping[str, float], further: Mapping[str, float] | None
    ) -> dict[str, float] | None:
        if not self.scores:
            return None
        features = dict(aggregates)
        features |= details(self.scores)
        if len(provenance) > 1 and (parts := shares(provenance)):
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
        found, provenance = self.aggregates(), self.provenance()
        features = self._features(found, provenance, further)
        judged = calibration if calibration and features and calibration.judges(features) else None
        risk = judged.risk(features) if judged and features else None
        shown: dict[str, Any] = {name: found.get(name) for name in SHOWN}
        return Uncertainty(
            risk=risk,
            calibrated=judged is not None,
            calibration=judged.name if judged else None,
            abstain=None if risk is None or abstain_above is None else risk > abstain_above,
            tokens=len(self.scores),
            growth=shares(provenance),
            **shown,
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
