"""Answers in the terminal: tokens on a background coloured by their entropy, and a summary."""

from __future__ import annotations

from bisect import bisect
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Iterable, Iterator
from unicodedata import category

from openai.types.chat import ChatCompletionTokenLogprob
from pydantic import BaseModel, ValidationError
from rich.style import Style
from rich.text import Text

BOUNDS = (0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3)
"""Entropies [nats] at which the levels of the tint begin, as in the playground."""

LEVELS = tuple(
    Style.parse(style)
    for style in (
        "none",
        "#1d2026 on #fff7dc",
        "#1d2026 on #ffecb3",
        "underline #1d2026 on #fedb7f",
        "underline #1d2026 on #fdc04e",
        "underline #1d2026 on #f59c2f",
        "bold underline #17191e on #e07a1c",
        "bold underline #ffffff on #ad470c",
        "bold underline #ffffff on #742808",
    )
)
"""The playground's light scale. Every level has its own text colour, to suit any terminal; underlines and bold type
tell the levels apart without colours."""


class Tint:
    """Aligns the tokens of a stream with the text of the answer.

    They differ: text is held back while it may still become a stop string, a special token has no text, and a
    character may be spread over several tokens.
    """

    def __init__(self) -> None:
        self.text = ""  # received, not yet laid
        self.waiting: deque[tuple[str, float]] = deque()  # tokens not yet laid, with their entropies
        self.decoder = getincrementaldecoder("utf-8")(errors="replace")
        self.unfinished = 0.0  # highest entropy among the tokens of an incomplete character

    def add(self, content: str, tokens: Iterable[ChatCompletionTokenLogprob]) -> Text:
        """The text to show after a chunk with this content and these tokens."""
        self.text += content
        for token in tokens:
            said = (token.model_extra or {}).get("entropy")
            entropy = max(self.unfinished, said if isinstance(said, int | float) else 0.0)
            own = token.token if token.bytes is None else self.decoder.decode(bytes(token.bytes))
            if own:
                self.waiting.append((own, entropy))
            self.unfinished = 0.0 if own else entropy
        return self._lay(complete=False)

    def rest(self) -> Text:
        """The remaining text at the end of the stream; text without a token is not tinted."""
        return self._lay(complete=True).append(self.text)

    def _lay(self, complete: bool) -> Text:
        laid = Text()
        while self.waiting and self.text:
            own, entropy = self.waiting[0]
            partly = own.startswith(self.text)  # held back, or cut by a stop string
            if partly and own != self.text and not complete:
                break
            self.waiting.popleft()
            if partly or self.text.startswith(own):
                laid.append(self.text[: len(own)], LEVELS[level(entropy)])
                self.text = self.text[len(own) :]
        return laid


def one_line(text: object) -> str:
    return " ".join(str(text).split())


BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Unicode's property Bidi_Control: these characters can reorder a line."""


def harmless(text: str) -> str:
    """`text` with harmful characters replaced, of the same length: control characters but newline and tab,
    bidirectional controls, and lone surrogates."""
    return "".join("\ufffd" if _harmful(c) else c for c in text)


def _harmful(c: str) -> bool:
    return c in BIDI_CONTROLS or (category(c) in ("Cc", "Cs") and c not in "\n\t")


def percent(share: float) -> str:
    """The share in percent; only 0 and 1 themselves are shown as 0% and 100%."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 < share < 1 else f"{share:.0%}"


def level(entropy: float) -> int:
    """Level of the tint, 0 to 8."""
    return bisect(BOUNDS, entropy)


class Span(BaseModel):
    """The fields of a span that are shown."""

    text: str
    reason: str
    kind: str | None = None
    risk: float | None = None


class Told(BaseModel):
    """The fields of `uncertainty` that are shown, all optional: the server may be another one than ours."""

    risk: float | None = None
    reason: str | None = None
    calibrated: bool | None = None
    max_entropy: float | None = None
    mean_entropy: float | None = None
    growth: dict[str, float] | None = None
    spans: list[Span] | None = None


def summary(uncertainty: object) -> Iterator[Text]:
    """The lines below an answer: risk, entropy and growth; then the words to doubt, or that were undecided."""
    try:
        told = Told.model_validate(uncertainty)
    except ValidationError:
        yield Text("  the `uncertainty` of this server has a shape that is not known here")
        return
    parts = []
    if told.risk is not None:
        parts.append(Text(f"risk {percent(told.risk)}", "bold"))
    elif told.reason is not None:
        parts.append(Text(f"no risk: {one_line(told.reason).replace('_', ' ')}"))
    elif told.calibrated is False:
        parts.append(Text("not calibrated"))
    if (peak := told.max_entropy) is not None:
        parts.append(Text("highest entropy ").append(f"{peak:.2f} nats", LEVELS[level(peak)]))
    if told.mean_entropy is not None:
        parts.append(Text(f"mean {told.mean_entropy:.2f}"))
    if told.growth:
        added = (f"{stage} {nats:+.2f}" for stage, nats in told.growth.items())
        parts.append(Text(f"growth {', '.join(added)} nats"))
    if parts:
        yield Text("  ").append_text(Text(" · ").join(parts))
    for span in told.spans or ():
        kind = "undecided: " if span.kind == "undecided" else ""
        risk = "" if span.risk is None else f" (risk {percent(span.risk)})"
        yield Text(f"  {kind}{one_line(span.text)}: {one_line(span.reason)}{risk}")


def legend() -> Text:
    text = Text("tint: entropy in nats from ")
    for style, bound in zip(LEVELS, (0, *BOUNDS), strict=True):
        text.append(f" {bound} ", style)
    return text
