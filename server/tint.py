"""How the terminal shows an answer: tokens on a background that says how undecided the model was, and a summary."""

from __future__ import annotations

from bisect import bisect
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from openai.types.chat import ChatCompletionTokenLogprob
from rich.style import Style
from rich.text import Text

BOUNDS = (0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3)
"""Entropies [nats] at which the levels of the tint begin; those of the playground."""

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
"""The playground's light scale. Its colours bring their own text colour, so that they suit any terminal; underlines
and bold type tell the levels apart where there are no colours."""


class Tint:
    """Lays the tokens of a stream over the text of the answer.

    The two do not simply agree: text is held back while it may still become a stop string, a special token has no
    text, and a character may be spread over several tokens.
    """

    def __init__(self) -> None:
        self.text = ""  # that has come and is not laid yet
        self.waiting: deque[tuple[str, float]] = deque()  # tokens that are not laid yet, with their entropies
        self.decoder = getincrementaldecoder("utf-8")(errors="replace")
        self.unfinished = 0.0  # highest entropy of the tokens of a character that is not complete

    def add(self, content: str, tokens: Iterable[ChatCompletionTokenLogprob]) -> Text:
        """What can be shown after a chunk with this content and these tokens."""
        self.text += content
        for token in tokens:
            entropy = max(self.unfinished, (token.model_extra or {}).get("entropy") or 0.0)
            own = token.token if token.bytes is None else self.decoder.decode(bytes(token.bytes))
            if own:
                self.waiting.append((own, entropy))
            self.unfinished = 0.0 if own else entropy
        return self._lay(complete=False)

    def rest(self) -> Text:
        """What is left when the stream is over; text that no token accounts for is not tinted."""
        return self._lay(complete=True).append(harmless(self.text))

    def _lay(self, complete: bool) -> Text:
        laid = Text()
        while self.waiting and self.text:
            own, entropy = self.waiting[0]
            partly = own.startswith(self.text)  # held back, or cut by a stop string
            if partly and own != self.text and not complete:
                break
            self.waiting.popleft()
            if partly or self.text.startswith(own):
                laid.append(harmless(self.text[: len(own)]), LEVELS[level(entropy)])
                self.text = self.text[len(own) :]
        return laid


def printable(text: object) -> str:
    """One line without control characters, which could make the terminal do things."""
    return " ".join(harmless(str(text)).split())


def harmless(text: str) -> str:
    """`text` with every control character but newline and tab replaced."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def percent(share: float) -> str:
    """What is not quite 0 or 1 does not become it by rounding."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 < share < 1 else f"{share:.0%}"


def level(entropy: float) -> int:
    """0 to 8."""
    return bisect(BOUNDS, entropy)


def summary(uncertainty: dict[str, Any]) -> Iterator[Text]:
    """The lines below an answer: risk, entropy and growth; then the words to doubt."""
    peak, mean, risk = uncertainty["max_entropy"], uncertainty["mean_entropy"], uncertainty["risk"]
    line = Text("  ")
    if risk is not None:
        line.append(f"risk {percent(risk)}", "bold").append(" · ")
    if not uncertainty["calibrated"]:
        line.append("not calibrated · ")
    if peak is not None:
        line.append("highest entropy ").append(f"{peak:.2f} nats", LEVELS[level(peak)]).append(f" · mean {mean:.2f}")
    if growth := uncertainty["growth"]:
        line.append(" · drew on " + ", ".join(f"{stage} {percent(share)}" for stage, share in growth.items()))
    yield line
    for span in uncertainty.get("spans") or ():
        risk = "" if span["risk"] is None else f" (risk {percent(span['risk'])})"
        yield Text(f"  {printable(span['text'])}: {printable(span['reason'])}{risk}")


def legend() -> Text:
    text = Text("tint: entropy in nats from ")
    for style, bound in zip(LEVELS, (0, *BOUNDS), strict=True):
        text.append(f" {bound} ", style)
    return text
