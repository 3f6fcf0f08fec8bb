"""From a choice's tokens to `choices[].uncertainty`. Pure: no vLLM, no HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from server.uncertainty.calibration import Calibration
from server.uncertainty.features import AGGREGATES, GROUPS, LOWEST_LOGPROB, closed_form, details, newest_growth
from server.uncertainty.reason import NoRisk
from server.uncertainty.sentences import Sentence, divided
from server.uncertainty.spans import DOUBTED_RISK, undecided_spans
from server.uncertainty.summary import SentenceUncertainty, Span, Uncertainty
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
"""Aggregates that the response shows."""

WINDOW = 8
"""Tokens in the window of the worst mean entropy."""

LEAST_VARIANCE = 1e-6
"""nats^2. Below this total variance of an answer's tokens, s - H is float32's rounding."""


@dataclass(frozen=True)
class EnsembleScore:
    """The parameter-token ensemble's uncertainty of each token, nats; None for a token without a distribution.

    `computed` counts the tokens that the members ran through the model.
    """

    members: int
    epistemic: list[float | None]
    aleatoric: list[float | None]
    computed: int

    def part(self, tokens: slice) -> EnsembleScore:
        """The score of these tokens alone."""
        return EnsembleScore(self.members, self.epistemic[tokens], self.aleatoric[tokens], self.computed)

    def features(self) -> dict[str, float]:
        """Features for calibrations, see `server.uncertainty.features`; empty without any distribution."""
        summary = self.summary()
        return {name: summary[name] for name in GROUPS["ensemble"] if summary[name] is not None}

    def summary(self, first: int = 0) -> dict[str, Any]:
        """The fields of `Uncertainty` that come from it; `first` as in `ChoiceScore.first_index`."""
        epistemic = [value for value in self.epistemic if value is not None]
        aleatoric = [value for value in self.aleatoric if value is not None]
        return {
            "estimator": "ensemble",
            "ensemble": self.members,
            "ensemble_tokens": self.computed,
            "epistemic": self.epistemic,
            "aleatoric": self.aleatoric,
            "mean_epistemic": math.fsum(epistemic) / len(epistemic) if epistemic else None,
            "max_epistemic": max(epistemic, default=None),
            "first_token_epistemic": self.epistemic[first] if self.epistemic else None,
            "mean_aleatoric": math.fsum(aleatoric) / len(aleatoric) if aleatoric else None,
        }


@dataclass
class ChoiceScore:
    """The tokens of one choice, and their aggregates."""

    scores: list[TokenScore] = field(default_factory=list)

    @classmethod
    def of(cls, tokens: Iterable[TokenScore]) -> ChoiceScore:
        return cls(list(tokens))

    def add(self, token: TokenScore) -> None:
        """Add the next generated token. Aggregates are computed at the end, to keep the cost per token low."""
        self.scores.append(token)

    @property
    def first_index(self) -> int:
        """Index of the first token with (a part of) a letter or digit; 0 if there is none."""
        return next((token.index for token in placed(self.scores) if token.is_content), 0)

    def aggregates(self) -> dict[str, Any]:
        """The features of `AGGREGATES`; empty without tokens.

        The standardised surprisal is sum(s - H) / sqrt(sum V) over the tokens, with s = -ln p of the chosen token: by
        how many standard deviations the answer is more surprising than the model's own draws on average. It is below 0
        for answers that follow the likeliest tokens.
        """
        if not self.scores:
            return {}
        count = len(self.scores)
        logprobs = [max(token.logprob, LOWEST_LOGPROB) for token in self.scores]
        entropies = [token.entropy for token in self.scores]
        margins = [token.margin for token in self.scores]
        variance = sum(token.variance for token in self.scores)
        # A shorter answer is one window.
        windows = (entropies[start : start + WINDOW] for start in range(max(count - WINDOW, 0) + 1))
        surprisal_excess = sum(-logprob - entropy for logprob, entropy in zip(logprobs, entropies, strict=True))
        values = (
            sum(entropies) / count,
            max(entropies),
            entropies[self.first_index],
            max(map(math.fsum, windows)) / min(count, WINDOW),
            min(logprobs),
            variance / count,
            sum(margins) / count,
            min(margins),
            surprisal_excess / math.sqrt(max(variance, LEAST_VARIANCE)),
            float(count),
        )
        return dict(zip(AGGREGATES, values, strict=True))

    def growth(self) -> dict[str, float] | None:
        """Mean of `TokenScore.growth` over the tokens, by growth stage; None for a model that never grew."""
        grown = [token.growth for token in self.scores if token.growth]
        return {stage: math.fsum(part[stage] for part in grown) / len(grown) for stage in grown[0]} if grown else None

    def features(self, further: Mapping[str, float] | None = None) -> dict[str, float] | None:
        """Features for calibrations, by the names in `server.uncertainty.features`, all finite; without groups that the
        tokens lack. `further` are the features of the ensemble, if known.

        None for an answer without tokens, or from a model with logits that are not finite.
        """
        return self._features(self.aggregates(), closed_form(self.scores, self.first_index), further)

    def _features(
        self,
        aggregates: Mapping[str, float],
        closed: Mapping[str, float],
        further: Mapping[str, float] | None,
    ) -> dict[str, float] | None:
        if not self.scores:
            return None
        features = {**aggregates, **details(self.scores), **closed, **newest_growth(self.scores), **(further or {})}
        # A maximum or minimum can skip a NaN; sums cannot, so this finds any.
        return features if all(map(math.isfinite, features.values())) else None

    def summary(
        self,
        calibration: Calibration | None = None,
        abstain_above: float | None = None,
        text: str | None = None,
        ensemble: EnsembleScore | None = None,
        judged_by: EnsembleScore | None = None,
        objection: NoRisk | None = None,
        *,
        spans: bool = True,
        sentences: bool = False,
    ) -> Uncertainty:
        """The summary in the response. Aggregates are null without tokens, and the risk without a calibration.

        `abstain` is null without a risk or without a limit in the request, `spans` and `sentences` without the `text`
        of the tokens, and the fields of the `ensemble` without one. `judged_by`: the ensemble that the calibration
        reads. `objection`: why the calibration does not hold for this answer, or why there is none.
        """
        found, first = self.aggregates(), self.first_index
        closed = closed_form(self.scores, first)
        features = self._features(found, closed, judged_by.features() if judged_by else None)
        reason = self._no_risk(calibration, features, objection)
        judged = calibration if reason is None else None
        risk = self._risk(judged, features, text, judged_by) if judged and features else None
        shown: dict[str, Any] = {name: found.get(name) for name in SHOWN}
        listed = None if text is None else self.spans(text, judged, risk, ensemble.epistemic if ensemble else None)
        return Uncertainty(
            risk=risk,
            reason=reason,
            calibrated=judged is not None,
            calibration=judged.name if judged else None,
            abstain=None if risk is None or abstain_above is None else risk > abstain_above,
            tokens=len(self.scores),
            growth=self.growth(),
            **shown,
            spans=listed if spans else None,
            sentences=self._sentences(text, listed, judged, risk, ensemble, judged_by) if sentences else None,
            **(ensemble.summary(first) if ensemble else closed_form_summary(closed)),
        )

    def _no_risk(
        self, calibration: Calibration | None, features: Mapping[str, float] | None, objection: NoRisk | None
    ) -> NoRisk | None:
        """Why the answer has no risk; None if the calibration judges it."""
        if objection is not None:
            return objection
        if calibration is None:
            return "no_calibration"
        if not self.scores:
            return "empty"
        if features is None:
            return "not_finite"
        return None if calibration.judges(features) else "feature_missing"

    def _risk(
        self,
        calibration: Calibration,
        features: Mapping[str, float],
        text: str | None,
        judged_by: EnsembleScore | None,
    ) -> float | None:
        """The answer's risk, which is that of its worst sentence if the calibration was fitted on sentences."""
        if not calibration.judges_sentences:
            return calibration.risk(features)
        begin = self.scores[0].start
        made = " " * begin + "".join(token.text for token in self.scores)
        parts = divided(self.scores, text or made) or [Sentence(begin, begin, slice(None))]
        risks = (_part_risk(self, part.tokens, calibration, judged_by) for part in parts)
        return max((risk for risk in risks if risk is not None), default=None)

    def _sentences(
        self,
        text: str | None,
        spans: Sequence[Span] | None,
        calibration: Calibration | None,
        risk: float | None,
        ensemble: EnsembleScore | None,
        judged_by: EnsembleScore | None,
    ) -> list[SentenceUncertainty] | None:
        """The sentences of `text`; `risk` is the answer's."""
        if text is None or spans is None:
            return None
        found = []
        for part in divided(self.scores, text):
            own = ChoiceScore.of(self.scores[part.tokens])
            shown = own.summary(ensemble=ensemble and ensemble.part(part.tokens))
            within = [span for span in spans if part.start <= span.start < part.end]
            alone = None if calibration is None else _part_risk(self, part.tokens, calibration, judged_by)
            limited = None if alone is None or risk is None else min(alone, risk)
            numbers = shown.model_dump(include=SentenceUncertainty.model_fields.keys() - {"risk", "spans"})
            words = text[part.start : part.end]
            found.append(
                SentenceUncertainty(start=part.start, end=part.end, text=words, risk=limited, spans=within, **numbers)
            )
        return found

    def spans(
        self,
        text: str,
        calibration: Calibration | None = None,
        risk: float | None = None,
        epistemic: Sequence[float | None] | None = None,
    ) -> list[Span]:
        """The doubted words of `text`, or without a risk of theirs the undecided ones; `risk` is the answer's."""
        found = []
        for span in undecided_spans(self.scores, text, epistemic):
            own = _part_risk(ChoiceScore.of(span.tokens), slice(None), calibration) if calibration else None
            own = None if own is None or risk is None else min(own, risk)
            most = risk if own is None else own
            if most is None or most > DOUBTED_RISK:
                kind: Literal["doubted", "undecided"] = "undecided" if own is None else "doubted"
                words = text[span.start : span.end]
                found.append(Span(start=span.start, end=span.end, text=words, kind=kind, risk=own, reason=span.reason))
        return found


def closed_form_summary(closed: Mapping[str, float]) -> dict[str, Any]:
    """The fields of `Uncertainty` that come from the closed form."""
    if not closed:
        return {}
    names = ("mean", "max", "first_token")
    return {"estimator": "closed-form"} | {f"{name}_epistemic": closed[f"{name}_closed_form"] for name in names}


def _part_risk(
    score: ChoiceScore, tokens: slice, calibration: Calibration, judged_by: EnsembleScore | None = None
) -> float | None:
    """The risk of these tokens alone; None where the calibration reads more than is known of them."""
    further = judged_by.part(tokens).features() if judged_by else None
    features = ChoiceScore.of(score.scores[tokens]).features(further)
    return calibration.risk(features) if features is not None and calibration.judges(features) else None
