"""The page's rendering of an answer."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.playground.conftest import Opener
from tests.playground.script import MARKUP, SPLIT
from tests.support import scripted as scripts
from tests.support.browser import detail, level, token


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
    """The relative luminance of an opaque CSS colour, by WCAG 2.2."""
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


def test_without_a_risk_words_are_undecided_and_not_doubted(opened: Opener) -> None:
    (answer,) = opened().ask("undecided")
    expect(answer).to_contain_text("Uncertain:")
    expect(answer).not_to_contain_text("Doubtful:")
    expect(answer.locator(".reasons li")).to_have_text("Lisbon: high entropy at the first value token")


def detail_of(page: Page, element: Any) -> dict[str, str]:
    element.focus()
    return detail(page)


def test_without_a_calibration_it_says_so(opened: Opener) -> None:
    (answer,) = opened().ask("ladder")
    expect(answer.locator(".badge")).to_have_text("highest entropy 0.50 nats no risk: no calibration")


def test_growth_and_sparkline_say_their_numbers(opened: Opener) -> None:
    (answer,) = opened().ask("doubt")
    expect(answer.get_by_role("img", name="base +2.50 nats, news -0.50 nats")).to_be_visible()
    expect(answer.get_by_role("img", name="highest 2.00 nats, at Lisbon")).to_be_visible()


def test_a_token_shows_its_alternatives_and_their_probabilities(opened: Opener) -> None:
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
    assert [numbers[name] for name in ("Epistemic", "Ensemble", "Aleatoric")] == [
        "2.500 mnats",
        "0.400 nats",
        "0.600 nats",
    ]
    playground.page.get_by_role("radio", name="Ensemble").check(force=True)
    assert [level(token(answer, word)) for word in ("So", "it")] == [4, 6]


def test_the_closed_form_and_growth_are_shown_without_an_ensemble(opened: Opener) -> None:
    playground = opened()
    (answer,) = playground.ask("closed form")
    assert "ensemble" not in playground.bodies[-1]["uncertainty"]
    expect(answer.locator(".figures div", has_text="Highest epistemic")).to_contain_text("2.50 mnats")
    numbers = detail_of(playground.page, token(answer, "it"))
    assert [numbers[name] for name in ("Epistemic", "Stage base", "Stage news")] == [
        "2.500 mnats",
        "+8.00 nats",
        "-0.75 nats",
    ]
    for measure, levels in (("Epistemic", [0, 2]), ("Newest stage", [5, 0])):
        playground.page.get_by_role("radio", name=measure).check(force=True)
        assert [level(token(answer, word)) for word in ("So", "it")] == levels, measure


def test_a_long_name_of_a_model_is_readable(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "tokenformer-qwen3-0.6b:chemistry"
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
