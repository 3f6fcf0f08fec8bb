"""The page in a real browser, against a server that answers from a script."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import scripted as scripts
from tests.browser import Playground, detail, level, token
from tests.scripted import Break, chunk, last, scripted, summary, words
from tests.scripted import token as made

MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"
SPLIT = ["🙂", "é"]
LADDER = (0.05, 0.1, 0.3, 0.7, 1.2, 1.7, 2.2, 2.7, 5.0)
"""One entropy of each level."""

SPANS: list[dict[str, Any]] = [
    {"start": 2, "end": 8, "text": "Lisbon", "risk": 0.64, "reason": "high entropy at the first value token"}
]
INSIDE = {"key": {"kurtosis": 9.0, "kurtosis_z": 1.0, "score_norm_z": -1.5, "growth": {"base": 1.0}}}
GROWTH = {"base": 0.7, "news": 0.3}
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
    "ensemble": [
        *words(made("So", 1.0), made(" it", 1.0)),
        chunk(
            "",
            [made("<|end|>", 0.1)],
            finish_reason="stop",
            uncertainty=summary(
                ensemble=4,
                mean_epistemic=0.41,
                max_epistemic=0.42,
                mean_aleatoric=0.59,
                epistemic=[0.4, 0.7, 0.0],
                aleatoric=[0.6, 0.3, 0.1],
            ),
        ),
    ],
    "internals": [
        *words(
            made("odd", internals={"layers": [INSIDE, {"key": INSIDE["key"] | {"kurtosis_z": -4.0}}]}),
            made(" plain", internals={"layers": [{"key": {"kurtosis": 3.0, "kurtosis_z": None}}]}),
        ),
        last(),
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
    "slow": [*words(made("First", 0.2)), 60.0, last()],
    "lost": [*words(made("Half", 0.2)), 0.2, Break.LOST],
    "ended": [*words(made("Half", 0.2)), Break.ENDED],
    "given up": [*words(made("Half", 0.2)), {"error": {"message": "out of memory", "code": 500}}],
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scripted(SCRIPT) as address:
        yield address


Opener = Callable[..., Playground]


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Opener]:
    """Opens the page; none may have had problems by the end of its test."""
    pages: list[Playground] = []

    def opener(url: str = address, **context: Any) -> Playground:
        pages.append(Playground(browser, url, **context))
        expect(pages[-1].page.get_by_label("Model", exact=True).get_by_role("option")).not_to_have_count(0)
        return pages[-1]

    yield opener
    for page in pages:
        assert page.problems == []
        page.context.close()


def test_what_a_model_says_is_never_markup(opened: Opener) -> None:
    (answer,) = opened().ask("markup")
    assert answer.locator(".tokens").text_content() == MARKUP
    assert answer.locator("img, .tokens b").count() == 0


def test_a_character_of_several_tokens_is_one_part_with_the_highest_entropy(opened: Opener) -> None:
    (answer,) = opened().ask("split")
    assert answer.get_by_role("option").all_text_contents() == SPLIT
    assert level(token(answer, SPLIT[0])) == 4


def test_text_that_is_held_back_is_laid_under_its_tokens(opened: Opener) -> None:
    playground = opened()
    (answer,) = playground.ask("held back")
    assert answer.get_by_role("option").all_text_contents() == ["One", " two"]
    assert [level(token(answer, word)) for word in ("One", "two")] == [2, 5]
    (answer,) = playground.ask("cut")
    assert answer.get_by_role("option").all_text_contents() == ["Lis"]
    assert level(token(answer, "Lis")) == 7


def luminance(colour: str) -> float:
    """Of an opaque CSS colour, by WCAG 2.2."""
    channels = [float(value) / 255 for value in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_scale_is_readable_without_colour_vision(opened: Opener, scheme: str) -> None:
    """Luminance changes in one direction only, text has a contrast of 4.5 at every level, and underlines thicken."""
    (answer,) = opened(color_scheme=scheme).ask("ladder")
    tokens = answer.get_by_role("option").all()
    assert [level(found) for found in tokens] == list(range(9))
    card = answer.evaluate("e => getComputedStyle(e).backgroundColor")
    styles = [
        found.evaluate("e => {const s = getComputedStyle(e); return [s.backgroundColor, s.color, s.textDecoration]}")
        for found in tokens
    ]
    backs = [luminance(card if back == "rgba(0, 0, 0, 0)" else back) for back, _, _ in styles]
    texts = [luminance(text) for _, text, _ in styles]
    for back, text in zip(backs, texts, strict=True):
        assert (max(back, text) + 0.05) / (min(back, text) + 0.05) >= 4.5
    ordered = [a > b if scheme == "light" else a < b for a, b in pairwise(backs)]
    assert all(ordered)
    widths = [float(found.group(1)) if (found := re.search(r"([\d.]+)px", line)) else 0.0 for _, _, line in styles]
    assert widths == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    text = answer.page.get_by_role("list", name="Scale of Entropy").all_inner_texts()[0].split()
    assert text == ["0", "0.1", "0.25", "0.5", "1", "1.5", "2", "2.5", "3"]


def test_the_tint_follows_the_measure(opened: Opener) -> None:
    playground = opened()
    (answer,) = playground.ask("doubt")
    value = token(answer, "Lisbon")
    assert level(value) == 6
    for measure, expected in (("Variance", 7), ("Risk", 6), ("Newest stage", 0), ("Entropy", 6)):
        playground.page.get_by_role("radio", name=measure).check(force=True)
        assert level(value) == expected, measure
        expect(playground.page.get_by_role("list", name=f"Scale of {measure}")).to_be_visible()


def test_risk_and_reasons(opened: Opener) -> None:
    playground = opened()
    (answer,) = playground.ask("doubt")
    assert playground.bodies[0]["uncertainty"]["abstain_above"] == 0.6  # what the model's calibration recommends
    expect(answer.locator(".badge")).to_have_text("risk 71 %")
    expect(answer.locator(".reasons li")).to_have_text("Lisbon: high entropy at the first value token, risk 64 %")
    expect(answer).to_contain_text("Flagged: the risk is above the limit that the calibration recommends.")
    token(answer, "Lisbon").focus()
    expect(answer.page.get_by_role("tooltip")).to_contain_text("high entropy at the first value token")
    assert detail(answer.page)["Risk"] == "64 %"
    assert "Risk" not in detail_of(answer.page, token(answer, "."))


def detail_of(page: Page, element: Any) -> dict[str, str]:
    element.focus()
    return detail(page)


def test_without_a_calibration_it_says_so(opened: Opener) -> None:
    (answer,) = opened().ask("ladder")
    expect(answer.locator(".badge")).to_have_text("highest entropy 0.50 nats not calibrated")


def test_provenance_and_sparkline_say_their_numbers(opened: Opener) -> None:
    (answer,) = opened().ask("doubt")
    expect(answer.get_by_role("img", name="base 70 %, news 30 %")).to_be_visible()
    expect(answer.get_by_role("img", name="highest 2.00 nats, at Lisbon")).to_be_visible()


def test_alternatives(opened: Opener) -> None:
    (answer,) = opened().ask("alternatives")
    token(answer, "yes").hover()
    rows = answer.page.get_by_role("tooltip").locator(".alternatives li").all_inner_texts()
    assert [row.split() for row in rows] == [["yes", "(chosen)", "61", "%"], ["no⏎", "37", "%"], ["-", "<0.1", "%"]]


def test_an_ensemble_is_asked_for_and_shown(opened: Opener) -> None:
    playground = opened()
    playground.page.get_by_text("Settings").click()
    playground.page.get_by_role("checkbox", name="Ask an ensemble").check()
    playground.page.get_by_label("Members").fill("4")
    playground.page.get_by_text("Settings").click()
    (answer,) = playground.ask("ensemble")
    assert playground.bodies[-1]["uncertainty"]["ensemble"] == 4
    expect(answer.locator(".figures div", has_text="Mean epistemic")).to_contain_text("0.41 nats")
    numbers = detail_of(playground.page, token(answer, "So"))
    assert (numbers["Epistemic"], numbers["Aleatoric"]) == ("0.400 nats", "0.600 nats")
    playground.page.get_by_role("radio", name="Epistemic").check(force=True)
    assert [level(token(answer, word)) for word in ("So", "it")] == [4, 6]


def test_internals_tint_by_their_distance_from_the_training_texts(opened: Opener) -> None:
    playground = opened()
    (answer,) = playground.ask("internals")
    assert detail_of(playground.page, token(answer, "odd"))["Internals, mean |z|"] == "2.00"
    assert "Internals, mean |z|" not in detail_of(playground.page, token(answer, "plain"))  # the server has no profile
    playground.page.get_by_role("radio", name="Internals").check(force=True)
    assert [level(token(answer, word)) for word in ("odd", "plain")] == [6, 0]


def test_internals_are_asked_for_only_where_they_are_looked_at(opened: Opener) -> None:
    playground = opened()
    playground.page.get_by_label("Compare with").select_option("m:base")  # which does not offer them
    for measure, expected in (("Entropy", False), ("Internals", True), ("Risk", False), ("Newest stage", True)):
        playground.page.get_by_role("radio", name=measure).check(force=True)
        playground.ask("empty")
        asked = {body["model"]: body["uncertainty"]["internals"] for body in playground.bodies[-2:]}
        assert asked == {"m": expected, "m:base": False}, measure
        assert ("in answers from now on" in playground.page.locator("#legend").inner_text()) == expected


def test_a_long_name_of_a_model_is_readable(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "tokenformer-qwen3-0.6b:world-b"
    monkeypatch.setattr(scripts, "CARDS", [{"id": name}, {"id": f"{name}-{name}"}])
    page = opened().page
    picker = page.get_by_label("Model", exact=True)
    for chosen in (name, f"{name}-{name}"):
        picker.select_option(chosen)
        expect(picker).to_have_attribute("title", chosen)
    monkeypatch.setattr(scripts, "CARDS", [{"id": name}])
    page.reload()
    expect(picker).to_have_value(name)
    has, needs = picker.evaluate("e => [e.offsetWidth, (e.style.width = 'max-content', e.offsetWidth)]")
    assert has >= needs
    assert needs > 11 * 16  # the width of the picker for short names


def test_the_models_and_their_stages(opened: Opener) -> None:
    page = opened().page
    assert page.get_by_label("Model", exact=True).get_by_role("option").all_inner_texts() == ["m", "m:base"]
    expect(page.locator("#model-card")).to_have_text("stage news · 40 tokens · calibrated")
    page.get_by_label("Model", exact=True).select_option("m:base")
    expect(page.locator("#model-card")).to_have_text("stage base · 32 tokens · not calibrated")


def test_a_conversation_goes_on_in_each_column(opened: Opener) -> None:
    playground = opened()
    playground.ask("held back")
    playground.page.get_by_label("Compare with").select_option("m:base")
    answers = playground.ask("alternatives")
    assert [answer.get_by_role("heading").inner_text() for answer in answers] == ["m news", "m:base base"]
    told = [(body["model"], [message["content"] for message in body["messages"]]) for body in playground.bodies]
    assert sorted(told[1:]) == [(name, ["held back", "One two", "alternatives"]) for name in ("m", "m:base")]
    playground.page.get_by_role("button", name="New chat").click()
    playground.ask("empty")
    assert len(playground.bodies[-1]["messages"]) == 1


def test_stop(opened: Opener) -> None:
    playground = opened()
    playground.send("slow")
    expect(playground.page.get_by_role("option", name="First")).to_be_visible()
    playground.page.get_by_role("button", name="Stop").click()
    expect(playground.page.get_by_text("Stopped.")).to_be_visible()
    playground.ask("empty")
    assert [message["content"] for message in playground.bodies[-1]["messages"]] == ["slow", "First", "empty"]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("nonsense", "The server refused (400): I cannot answer nonsense (parameter messages)."),
        ("lost", "The connection was lost before the answer was complete."),
        ("ended", "The connection ended before the answer was complete."),
        ("given up", "The server gave up: out of memory"),
    ],
)
def test_failures_are_shown(opened: Opener, question: str, said: str) -> None:
    (answer,) = opened().ask(question)
    expect(answer.get_by_role("alert")).to_have_text(said)
    assert answer.locator(".tokens").text_content() == ("" if question == "nonsense" else "Half")


def test_a_refused_question_is_forgotten(opened: Opener) -> None:
    playground = opened()
    playground.ask("nonsense")
    playground.ask("empty")
    assert [message["content"] for message in playground.bodies[-1]["messages"]] == ["empty"]


def test_notes(opened: Opener) -> None:
    playground = opened()
    (answer,) = playground.ask("empty")
    expect(answer).to_contain_text("The answer is empty.")
    (answer,) = playground.ask("long")
    expect(answer).to_contain_text("Cut off at the greatest length.")


def test_an_api_key_is_asked_for_and_kept_in_the_tab(browser: Browser) -> None:
    with scripted(SCRIPT, api_key="secret") as address:
        playground = Playground(browser, address)
        expect(playground.page.get_by_role("alert")).to_have_text(
            "The server refused (401): Unauthorized. Enter an API key under Settings."
        )
        playground.page.get_by_label("API key").fill("secret")
        playground.page.get_by_label("API key").press("Tab")
        expect(playground.page.get_by_label("Model", exact=True)).to_have_value("m")
        expect(playground.page.get_by_role("alert")).to_have_count(0)
        (answer,) = playground.ask("held back")
        expect(answer.locator(".tokens")).to_have_text("One two")
        playground.page.reload()
        expect(playground.page.get_by_label("Model", exact=True)).to_have_value("m")
        assert playground.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert playground.problems == []
        playground.context.close()


def test_by_keyboard_alone(opened: Opener) -> None:
    page = opened().page
    question = page.get_by_role("textbox", name="Question")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    for _ in range(12):  # whatever stands between the link's target and the question
        if question.evaluate("e => e === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(question).to_be_focused()
    page.keyboard.type("ladder")
    page.keyboard.press("Enter")
    answer = page.get_by_role("article")
    expect(answer).to_have_attribute("aria-busy", "false")
    for _ in range(12):
        if page.locator(".token:focus").count():
            break
        page.keyboard.press("Shift+Tab")
    expect(page.locator(".token:focus")).to_have_text("t0 ")
    page.keyboard.press("End")
    expect(page.get_by_role("option", name="t8, Entropy 5.00")).to_be_focused()
    expect(page.locator(".token:focus")).to_have_attribute("aria-describedby", "detail")
    assert detail(page)["Entropy"] == "5.000 nats"
    page.keyboard.press("ArrowLeft")
    assert detail(page)["Entropy"] == "2.700 nats"
    assert page.locator(".token:focus").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip")).to_be_hidden()
    assert page.locator(".tokens [tabindex='0']").count() == 1  # the tokens are one stop on the way


def test_an_answer_is_read_out_once(opened: Opener) -> None:
    playground = opened()
    said: list[str] = []
    playground.page.expose_function("heard", lambda text: said.append(text))
    playground.page.evaluate(
        "new MutationObserver(() => heard(document.querySelector('[aria-live]').textContent))"
        ".observe(document.querySelector('[aria-live]'), {childList: true})"
    )
    playground.ask("doubt")
    expect(playground.page.get_by_role("status")).to_have_text("🙂 Lisbon. risk 71 %")
    assert said == ["Answering", "🙂 Lisbon. risk 71 %"]
    assert playground.page.locator("[aria-live]").count() == 1


def test_everything_has_a_name(opened: Opener) -> None:
    """What can be operated has an accessible name, no id is given twice, and every reference to an id leads to one."""
    playground = opened()
    playground.page.get_by_text("Settings").click()
    playground.ask("doubt")
    nameless = playground.page.evaluate(
        """() => [...document.querySelectorAll('input, select, textarea, button, [role=option], [role=listbox], svg')]
        .filter(e => !e.closest('[aria-hidden=true]'))
        .filter(e => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()))
        .map(e => e.outerHTML)"""
    )
    assert nameless == []
    ids = playground.page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    referred = playground.page.evaluate(
        """() => ['for', 'aria-describedby', 'aria-labelledby'].flatMap(name =>
        [...document.querySelectorAll(`[${name}]`)].map(e => e.getAttribute(name)))"""
    )
    assert set(referred) <= set(ids)


@pytest.mark.parametrize("question", ["doubt", "ladder"])
def test_it_fits_a_small_screen(opened: Opener, question: str) -> None:
    page = opened(viewport={"width": 360, "height": 740}).page
    page.get_by_label("Compare with").select_option("m:base")
    page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("article").first).to_have_attribute("aria-busy", "false")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.get_by_role("option").last.focus()
    box = page.get_by_role("tooltip").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
