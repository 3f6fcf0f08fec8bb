"""Prometheus metrics that vLLM does not have: how sure the model was, by model name."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

# Entropy runs from 0 to ln V (10.8 nats for 50,304 words); most tokens of a sure model lie below 0.1.
_ENTROPY_BUCKETS = (0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0)
_VARIANCE_BUCKETS = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)

TOKEN_ENTROPY = Histogram(
    "tokenformer_token_entropy_nats",
    "Entropy of the distribution that a generated token was drawn from.",
    ["model_name"],
    buckets=_ENTROPY_BUCKETS,
)
TOKEN_VARIANCE = Histogram(
    "tokenformer_token_variance_nats2",
    "Variance of -ln p under the distribution that a generated token was drawn from.",
    ["model_name"],
    buckets=_VARIANCE_BUCKETS,
)
ANSWER_RISK = Histogram(
    "tokenformer_answer_risk",
    "Calibrated probability that an answer is wrong.",
    ["model_name"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
)
FLAGGED_ANSWERS = Counter(
    "tokenformer_flagged_answers",  # prometheus adds _total
    "Answers whose risk was above the request's abstain_above or, without one, above the calibration's threshold.",
    ["model_name"],
)


def observe_token(model_name: str, entropy: float, variance: float) -> None:
    """One generated token that a client was told the uncertainty of; entropy in nats, variance in nats^2."""
    TOKEN_ENTROPY.labels(model_name).observe(entropy)
    TOKEN_VARIANCE.labels(model_name).observe(variance)


def observe_answer(model_name: str, risk: float, flag_above: float | None) -> None:
    """One finished choice with a calibrated risk, and the risk above which it is flagged (None: never)."""
    ANSWER_RISK.labels(model_name).observe(risk)
    flagged = FLAGGED_ANSWERS.labels(model_name)  # from the first answer on, so that a rate can be taken
    if flag_above is not None and risk > flag_above:
        flagged.inc()
