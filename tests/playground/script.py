"""The scripted server's answer to each question."""

from __future__ import annotations

from typing import Any

from tests.support.scripted import Break, chunk, last, summary, usage, words
from tests.support.scripted import token as made

MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"
SPLIT = ["🙂", "é"]
LADDER = (0.05, 0.1, 0.3, 0.7, 1.2, 1.7, 2.2, 2.7, 5.0)
"""One entropy of each level."""

SPANS: list[dict[str, Any]] = [
    {
        "start": 2,
        "end": 8,
        "text": "Lisbon",
        "kind": "doubted",
        "risk": 0.64,
        "reason": "high entropy at the first value token",
    }
]
GROWTH = {"base": 2.5, "news": -0.5}
SCRIPT: dict[str, Any] = {
    "markup": [*words(made(MARKUP)), last()],
    "split": [
        chunk("", [made("\ufffd", 0.2, raw=b) for b in (b"\xf0\x9f", b"\x99")]),
        chunk(SPLIT[0], [made("\ufffd", 1.2, raw=b"\x82")]),
        chunk(SPLIT[1], [made(SPLIT[1], 0.1)]),
        last(),
    ],
    "held back": [
        chunk("", [made("One", 0.3)]),
        chunk("One two", [made(" two", 1.6)]),
        chunk("", [made("<|end|>", 3.0)]),
        last(),
    ],
    "cut": [chunk("", [made("Lisbon", 2.6)]), chunk("Lis", [], finish_reason="stop", uncertainty=summary())],
    "ladder": [*words(*(made(f"t{i} ", entropy) for i, entropy in enumerate(LADDER))), last()],
    "doubt": [
        *words(made("🙂 ", 0.1), made("Lisbon", 2.0), made(".", 0.1)),
        last(
            risk=0.71,
            calibrated=True,
            calibration="iso-1",
            abstain=True,
            spans=SPANS,
            growth=GROWTH,
        ),
    ],
    "undecided": [
        *words(made("🙂 ", 0.1), made("Lisbon", 2.0), made(".", 0.1)),
        last(reason="no_calibration", spans=[{**SPANS[0], "kind": "undecided", "risk": None}]),
    ],
    "closed form": [
        *words(
            made("So", 1.0, epistemic=0.00005, growth={"base": 9.0, "news": 2.5}),
            made(" it", 1.0, epistemic=0.0025, growth={"base": 8.0, "news": -0.75}),
        ),
        last(estimator="closed-form", mean_epistemic=0.001275, max_epistemic=0.0025),
    ],
    "ensemble": [
        *words(made("So", 1.0, epistemic=0.0025), made(" it", 1.0)),
        chunk(
            "",
            [made("<|end|>", 0.1)],
            finish_reason="stop",
            uncertainty=summary(
                estimator="ensemble",
                ensemble=4,
                mean_epistemic=0.41,
                max_epistemic=0.42,
                mean_aleatoric=0.59,
                epistemic=[0.4, 0.7, 0.0],
                aleatoric=[0.6, 0.3, 0.1],
            ),
        ),
    ],
    "alternatives": [
        *words(
            made(
                "yes",
                0.6,
                top_logprobs=[
                    {"token": "yes", "logprob": -0.5},
                    {"token": "no\n", "logprob": -1.0},
                    {"token": "-", "logprob": -9},
                ],
            )
        ),
        last(),
    ],
    "empty": [last()],
    "long": [*words(made("word ", 0.2)), chunk("", finish_reason="length", uncertainty=summary())],
    "counted": [*words(made("Done", 0.2)), last(), usage(20)],
    "many": [*words(made("Much", 0.2)), last(), usage(90)],
    "too much": [Break.FULL, *words(made("Alone", 0.2)), last(), usage(15)],
    "silent": [60.0, last()],
    "slow": [*words(made("First", 0.2)), 60.0, last()],
    "lost": [*words(made("Half", 0.2)), 0.2, Break.LOST],
    "ended": [*words(made("Half", 0.2)), Break.ENDED],
    "given up": [*words(made("Half", 0.2)), {"error": {"message": "out of memory", "code": 500}}],
}
