"""Prometheus metrics beside vLLM's: uncertainty by model name, and the state of the server.

Label values come from fixed sets and from the served models, never from clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from prometheus_client import Counter, Gauge, Histogram

from server.uncertainty.tokens import TokenScore

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
WITHHELD_ANSWERS = Counter(
    "tokenformer_withheld_answers",  # prometheus adds _total
    "Answers that were not given to the client because of their risk, by what it got: a text (replaced) or an error.",
    ["model_name", "policy"],
)
TOKENS = Counter(
    "tokenformer_tokens",  # prometheus adds _total
    "Tokens generated for clients, by the growth stage that adds most to their logits; where that is not known, by the "
    "newest that the model consists of.",
    ["model_name", "growth_stage"],
)

# vLLM's latency buckets begin at 0.3 s for a request and 10 ms for a token, too coarse for a small model.
_LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_TOKEN_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

REQUEST_SECONDS = Histogram(
    "tokenformer_request_seconds",
    "Time from a request's arrival to the last byte of its complete answer.",
    ["model_name"],
    buckets=_LATENCY_BUCKETS,
)
FIRST_TOKEN_SECONDS = Histogram(
    "tokenformer_time_to_first_token_seconds",
    "Time from a streaming request's arrival to its first token.",
    ["model_name"],
    buckets=_LATENCY_BUCKETS,
)
TOKEN_SECONDS = Histogram(
    "tokenformer_time_per_output_token_seconds",
    "Mean time between the tokens of a sequence, in the engine.",
    ["model_name"],
    buckets=_TOKEN_BUCKETS,
)
REJECTED_REQUESTS = Counter(
    "tokenformer_rejected_requests",
    "Requests that were turned away before they reached the model, by reason.",
    ["reason"],
)
for _reason in (
    *("queue_full", "tokens_full", "too_many_sequences", "draining", "engine_dead"),
    *("unauthorized", "host", "method", "invalid_request_id"),
    *("too_many_connections", "bodies_full"),
    *("too_large", "timeout", "unsupported_media_type", "invalid_json", "invalid_value"),
):
    REJECTED_REQUESTS.labels(_reason)  # starts at 0, so that a rate sees the first one
# With --api-server-count every API process has its own gauges; the mode combines them.
QUEUED_REQUESTS = Gauge(
    "tokenformer_queued_requests",
    "Sequences in this server that have no token yet: arriving, waiting or in prefill.",
    multiprocess_mode="livesum",
)
QUEUED_TOKENS = Gauge(
    "tokenformer_queued_prompt_tokens",
    "Prompt tokens of the sequences that have no token yet.",
    multiprocess_mode="livesum",
)
READY = Gauge(
    "tokenformer_ready",
    "1 while the engine answers and new requests are taken, else 0.",
    multiprocess_mode="livemostrecent",
)
DRAINING = Gauge(
    "tokenformer_draining",
    "1 while running requests are finished before the server ends, else 0.",
    multiprocess_mode="livemax",
)
ENGINE_UP = Gauge("tokenformer_engine_up", "1 while the engine process lives, else 0.", multiprocess_mode="livemin")
ENGINE_UP.set(1)  # at once: an API process that still starts must not look like one that has lost its engine


_BY_MODEL = (
    *(TOKEN_ENTROPY, TOKEN_VARIANCE, ANSWER_RISK, FLAGGED_ANSWERS, WITHHELD_ANSWERS, TOKENS),
    *(REQUEST_SECONDS, FIRST_TOKEN_SECONDS, TOKEN_SECONDS),
)


def keep_models(names: Set[str]) -> None:
    """Remove the series of all other models, which were unloaded; late answers may have been observed since."""
    for metric in _BY_MODEL:
        samples = (sample for family in metric.collect() for sample in family.samples)
        for name in {sample.labels["model_name"] for sample in samples} - names:
            metric.remove_by_labels({"model_name": name})


def observe_tokens(model_name: str, tokens: Iterable[TokenScore]) -> None:
    """Observe generated tokens whose uncertainty is reported to a client."""
    entropies, variances = TOKEN_ENTROPY.labels(model_name), TOKEN_VARIANCE.labels(model_name)
    for token in tokens:
        entropies.observe(token.entropy)
        variances.observe(token.variance)


def observe_answer(model_name: str, risk: float, flag_above: float | None) -> None:
    """Observe a finished choice with a calibrated risk; it is flagged above `flag_above` (None: never)."""
    ANSWER_RISK.labels(model_name).observe(risk)
    for policy in ("replaced", "refused"):
        WITHHELD_ANSWERS.labels(model_name, policy)
    flagged = FLAGGED_ANSWERS.labels(model_name)  # exists from the first answer on, so that a rate can be taken
    if flag_above is not None and risk > flag_above:
        flagged.inc()
