"""Named features of an answer, which calibrations read, and the terms that the probe makes of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from server.uncertainty.tokens import TokenScore

AGGREGATES = (
    "mean_entropy",
    "max_entropy",
    "first_token_entropy",
    "worst_window_entropy",
    "min_logprob",
    "mean_variance",
    "mean_margin",
    "min_margin",
    "standardised_surprisal",
    "tokens",
)
"""The features of `logistic`; most of them are in the response as well."""

DETAILS = (
    "mean_logprob",
    "max_variance",
    "peak_variance",
    "peak_margin",
    "peak_logprob",
    "peak_position",
)
"""The peak is the first token with the highest entropy; its position among the tokens is from 0 to 1."""

CLOSED_FORM = ("mean_closed_form", "max_closed_form", "first_token_closed_form", "peak_closed_form")
"""Epistemic uncertainty by the closed form, as of entropy: the first token is that with the first letter or digit."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "logits": AGGREGATES + DETAILS,
    "closed_form": CLOSED_FORM,
    "growth": ("newest_stage_growth",),
    "ensemble": ("mean_epistemic", "max_epistemic", "mean_aleatoric"),
}
"""The features of the probe, by source. All answers have `logits`. `closed_form` needs an engine that reports it, which
one with pipeline parallelism does not, and `growth` a grown stage as well. `ensemble` needs an answer that was scored
again under it."""

FEATURES = tuple(name for names in GROUPS.values() for name in names)

CERTAIN = dict.fromkeys(("mean_margin", "min_margin", "peak_margin"), 1.0) | dict.fromkeys(
    (
        *("mean_entropy", "max_entropy", "first_token_entropy", "worst_window_entropy"),
        *("mean_logprob", "min_logprob", "peak_logprob", "mean_variance", "max_variance", "peak_variance"),
        *(*CLOSED_FORM, *GROUPS["ensemble"]),
    ),
    0.0,
)
"""The values of a model without any doubt; every doubt lies to one side of them."""

LOG = "log "
LEAST_DOUBT = 1e-4
"""Smaller doubts are not told apart: rounding errors of half precision are of this order."""

LEAST_CLOSED_FORM = 1e-7
"""As LEAST_DOUBT. The closed form is a sum of squares, so its rounding errors are smaller where it is small."""

LOWEST_LOGPROB = -9999.0
"""OpenAI's logprob of a probability of zero; JSON has no infinity."""


def details(tokens: Sequence[TokenScore]) -> dict[str, float]:
    """`DETAILS` of an answer of at least one token."""
    position = peak_index(tokens)
    peak = tokens[position]
    logprobs = [max(token.logprob, LOWEST_LOGPROB) for token in tokens]
    values = (
        math.fsum(logprobs) / len(tokens),
        max(token.variance for token in tokens),
        peak.variance,
        peak.margin,
        logprobs[position],
        position / len(tokens),
    )
    return dict(zip(DETAILS, values, strict=True))


def peak_index(tokens: Sequence[TokenScore]) -> int:
    """The first token with the highest entropy."""
    return max(range(len(tokens)), key=lambda i: tokens[i].entropy)


def closed_form(tokens: Sequence[TokenScore], first: int) -> dict[str, float]:
    """`CLOSED_FORM`; empty where a token has none. `first` is the index of the first token with a letter or digit."""
    values = [token.epistemic for token in tokens if token.epistemic is not None]
    if not values or len(values) < len(tokens):
        return {}
    found = (math.fsum(values) / len(values), max(values), values[first], values[peak_index(tokens)])
    return dict(zip(CLOSED_FORM, found, strict=True))


def newest_growth(tokens: Sequence[TokenScore]) -> dict[str, float]:
    """The most that the newest stage adds to a token's logit; empty for a model of one stage.

    An answer that it made has such tokens among many that any stage could have made, which a mean would dilute.
    """
    grown = [[*token.growth.values()][-1] for token in tokens if token.growth and len(token.growth) > 1]
    return {"newest_stage_growth": max(grown)} if grown else {}


def terms(names: Sequence[str]) -> list[str]:
    """The features, and for each with a value in CERTAIN the logarithm of the distance from it.

    Doubts of sure answers differ by orders of magnitude, and the logit of being wrong rather follows these.
    """
    return [*names, *(LOG + name for name in names if name in CERTAIN)]


def is_term(name: str) -> bool:
    return name in FEATURES or (name.startswith(LOG) and name.removeprefix(LOG) in CERTAIN)


def term(features: Mapping[str, float], name: str) -> float:
    """A feature's value; for a name that begins with `log `, the logarithm of the distance from certainty."""
    if not name.startswith(LOG):
        return features[name]
    feature = name.removeprefix(LOG)
    least = LEAST_CLOSED_FORM if feature in CLOSED_FORM else LEAST_DOUBT
    return math.log(abs(features[feature] - CERTAIN[feature]) + least)
