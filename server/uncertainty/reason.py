"""Why an answer has no risk, and the kinds of answers that a calibration was fitted on. Pure: no vLLM, no HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field, Strict, with_config
from typing_extensions import TypedDict  # pydantic takes that of `typing` from Python 3.12 only

from server.uncertainty.saved import EXACT

NoRisk = Literal[
    "no_calibration",
    "other_stage",
    "empty",
    "not_finite",
    "tool_calls",
    "constrained",
    "other_form",
    "truncated",
    "feature_missing",
]
"""The values of `uncertainty.reason`. If several apply, the first is told."""

MEANINGS: Mapping[NoRisk, str] = dict(
    zip(
        get_args(NoRisk),
        (
            "the server has no calibration",
            "the calibrations are of other growth stages or deltas than the one that answered",
            "the answer has no token",
            "the model gave logits that are not finite",
            "the answer consists of tool calls, which no label calls right or wrong",
            "a grammar decided what the model could say, as `response_format` does",
            "the calibration was fitted on chats and this is a bare completion, or the reverse",
            "the answer was cut off, and the calibration was fitted on whole answers",
            "the calibration reads a feature that this engine does not report",
        ),
        strict=True,
    )
)

Form = Literal["chat", "completion"]

Unit = Literal["answer", "sentence"]

CUT_OFF = frozenset({"length", "repetition"})
"""Finish reasons of answers that the model would have gone on with."""

LEAST_SHARE = 0.1
"""Least share of a kind of answers among the labels for which a calibration holds for this kind."""

Count = Annotated[int, Strict(), Field(ge=0)]


@with_config(EXACT)
class Population(TypedDict):
    """The kinds of answers that a calibration was fitted on, with the number of labels of each."""

    forms: dict[Form, Count]
    finish_reasons: dict[str, Count]
    """A given answer to a chat has its end token, and counts as `stop`; any other given text as `length`."""
    units: dict[Unit, Count]
    """What the labels call right or wrong."""


class AnswerKind(NamedTuple):
    """What decides whether a calibration holds for an answer."""

    form: Form
    finish_reason: str | None = None
    """None for a given text."""
    constrained: bool = False
    """Whether a grammar decided what the model could say: then its entropy is that of what it would have said."""
    calls_only: bool = False
    """Whether the message has tool calls and no text."""


def unlike(population: Population | None, kind: AnswerKind) -> NoRisk | None:
    """Why a calibration that was fitted on `population` does not hold for this kind of answer. An unknown population
    (None, of older files) may have held any."""
    if kind.calls_only:
        return "tool_calls"
    if kind.constrained:
        return "constrained"
    if population is None:
        return None
    if not _are_common(population["forms"], {kind.form}):
        return "other_form"
    if kind.finish_reason in CUT_OFF and not _are_common(population["finish_reasons"], CUT_OFF):
        return "truncated"
    return None


def is_of_sentences(population: Population | None) -> bool:
    """Whether the labels call sentences right or wrong, and too few of them whole answers."""
    return population is not None and not _are_common(population["units"], {"answer"})


def _are_common(counts: Mapping[Any, int], kinds: Set[str]) -> bool:
    """Whether enough labels are of one of these kinds."""
    return sum(counts.get(kind, 0) for kind in kinds) >= LEAST_SHARE * sum(counts.values()) > 0
