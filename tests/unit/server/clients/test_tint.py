"""The terminal's tint of tokens, and its lines below an answer."""

from __future__ import annotations

import json
import re

import pytest
from openai.types.chat import ChatCompletionTokenLogprob
from rich.text import Text

from server.clients.playground.routes import FILES
from server.clients.tint import BOUNDS, LEVELS, Tint, harmless, legend, level, one_line, percent, summary
from tests.support import scripted

OTHERS: list[object] = ["high", 0.3, {"max_entropy": "high"}, {"growth": {"base": None}}, {"spans": [{"start": 1}]}]


def token(text: str, entropy: float = 0.0, raw: bytes | None = None) -> ChatCompletionTokenLogprob:
    return ChatCompletionTokenLogprob.model_validate(scripted.token(text, entropy, raw))


def parts(*texts: Text) -> list[tuple[str, int]]:
    """The text that was shown, with its levels."""
    return [(text.plain[span.start : span.end], LEVELS.index(span.style)) for text in texts for span in text.spans]  # type: ignore[arg-type]


def test_it_is_the_playgrounds_scale() -> None:
    script, style = FILES["scale.js"].read_text(), FILES["style.css"].read_text()
    bounds = re.search(r'label: "Entropy".*?bounds: (\[.*?\])', script, re.DOTALL)
    assert bounds is not None
    assert json.loads(bounds.group(1)) == list(BOUNDS)
    light = style.split("@media")[0]
    backs = [re.search(rf"--back-{i}: (#\w+)", light) for i in range(1, 9)]
    assert [back and back.group(1) for back in backs] == [
        str(look.bgcolor and look.bgcolor.name) for look in LEVELS[1:]
    ]


def test_levels_rise_with_the_entropy_up_to_the_highest() -> None:
    assert [level(entropy) for entropy in (0, 0.0999, 0.1, 0.7, 3, 10)] == [0, 0, 1, 3, 8, 8]
    assert legend().plain.split()[-3:] == ["2", "2.5", "3"]


def test_tokens_of_one_chunk_keep_their_own_levels() -> None:
    """Also beside a special token, which has no text."""
    tint = Tint()
    shown = [tint.add("a man", [token("a", 0.3), token(" man", 1.2), token("<|end|>", 9)]), tint.rest()]
    assert parts(*shown) == [("a", 2), (" man", 4)]
    assert "".join(text.plain for text in shown) == "a man"


def test_a_special_token_within_the_answer() -> None:
    tint = Tint()
    shown = [tint.add("a", [token("a", 0.3), token("<|x|>", 9)]), tint.add(" man", [token(" man", 1.2)]), tint.rest()]
    assert parts(*shown) == [("a", 2), (" man", 4)]


def test_a_split_character_has_the_highest_entropy_of_its_tokens() -> None:
    tint = Tint()
    shown = [
        tint.add("", [token("\ufffd", 2.6, b"\xf0\x9f\x99")]),
        tint.add("🙂!", [token("\ufffd", 1, b"\x82"), token("!", 0.1)]),
    ]
    assert parts(*shown) == [("🙂", 7), ("!", 1)]


def test_held_back_text() -> None:
    tint = Tint()
    assert tint.add("", [token("Lisbon", 2.6)]).plain == ""
    assert tint.add("Lis", [token(" is", 0.3)]).plain == ""
    assert parts(tint.add("bon is", []), tint.rest()) == [("Lisbon", 7), (" is", 2)]


def test_a_stop_string_within_a_token() -> None:
    tint = Tint()
    assert parts(tint.add("Lis", [token("Lisbon", 2.6)]), tint.rest()) == [("Lis", 7)]


def test_text_without_tokens() -> None:
    """The text comes from a server that knows nothing of uncertainty."""
    tint = Tint()
    tint.add("hello", [])
    assert tint.rest().plain == "hello"


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "a\rb", "\x07"])
def test_a_model_cannot_operate_the_terminal(text: str) -> None:
    assert all(c.isprintable() for c in harmless(text))
    assert len(harmless(text)) == len(text)


@pytest.mark.parametrize("text", ["\u202eevil", "\u2066x", "\u200f", "\ud800"])
def test_a_model_cannot_reorder_a_line_or_break_its_encoding(text: str) -> None:
    assert harmless(text)[0] == "\ufffd"
    assert harmless(text).encode()


@pytest.mark.parametrize("text", ["a\tb\n🙂", "12\u00a0%", "東京\u3000大阪", "👩\u200d👧", "co\u00adop", "\ue000"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_percentages_round_to_certainty_only_if_it_is_one() -> None:
    shown = {0: "0%", 0.004: "<1%", 0.006: "1%", 0.994: "99%", 0.996: ">99%", 1: "100%"}
    assert {share: percent(share) for share in shown} == shown


def test_the_summary_tells_risk_entropy_growth_and_reasons() -> None:
    growth = {"base": 2.5, "news": -0.3}
    spans = [
        {"start": 0, "end": 6, "text": "Lisbon", "kind": "doubted", "risk": 0.64, "reason": "high entropy"},
        {"start": 7, "end": 9, "text": "is", "kind": "undecided", "risk": None, "reason": "why not"},
    ]
    told = scripted.summary(risk=0.71, calibrated=True, growth=growth, spans=spans, max_entropy=2.0)
    assert [line.plain for line in summary(told)] == [
        "  risk 71% · highest entropy 2.00 nats · mean 0.50 · growth base +2.50, news -0.30 nats",
        "  Lisbon: high entropy (risk 64%)",
        "  undecided: is: why not",
    ]
    (line,) = summary(scripted.summary())
    assert line.plain == "  no risk: no calibration · highest entropy 0.50 nats · mean 0.50"


@pytest.mark.parametrize(
    ("uncertainty", "lines"),
    [
        ({"score": 0.3}, []),
        ({"mean_entropy": 0.5}, ["  mean 0.50"]),
        *((other, ["  the `uncertainty` of this server has a shape that is not known here"]) for other in OTHERS),
    ],
)
def test_the_uncertainty_of_another_server(uncertainty: object, lines: list[str]) -> None:
    assert [line.plain for line in summary(uncertainty)] == lines


def test_the_entropy_of_another_server() -> None:
    tint = Tint()
    said = token("a").model_copy(update={"entropy": "low"})
    assert tint.add("a", [said]).plain == "a"


def test_blanks_and_line_breaks_become_single_blanks() -> None:
    assert one_line("a\n b\t") == "a b"
