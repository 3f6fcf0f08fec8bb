"""The visible parts of the page, at the width of a window and of a phone, in light and dark."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.playground.conftest import Opener
from tests.playground.controls import WIDTHS, button, is_uncovered
from tests.playground.script import SCRIPT
from tests.support.browser import Playground
from tests.support.scripted import scripted


def long_chat(playground: Playground) -> Page:
    for _ in range(4):
        playground.ask("doubt")
    return playground.page


@pytest.mark.parametrize("width", WIDTHS)
def test_the_header_stays_at_the_top(opened: Opener, width: str) -> None:
    page = long_chat(opened(viewport=WIDTHS[width]))
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    assert page.evaluate("scrollY") > 100
    box = page.get_by_role("banner").bounding_box()
    assert box is not None
    assert box["y"] == 0
    assert is_uncovered(page.get_by_role("button", name="New chat"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("turns", [0, 4])
def test_the_settings_never_cover_an_error(opened: Opener, width: str, turns: int) -> None:
    playground = opened(viewport=WIDTHS[width])
    for _ in range(turns):
        playground.ask("doubt")
    playground.ask("nonsense")
    alert = playground.page.get_by_role("alert")
    for _ in range(2):
        playground.page.wait_for_timeout(100)  # two frames until it is scrolled to
        assert is_uncovered(alert)
        button(playground, "Settings").click()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_missing_key_is_told_beside_the_open_settings(browser: Browser, width: str) -> None:
    with scripted(SCRIPT, api_key="secret") as address:
        playground = Playground(browser, address, viewport=WIDTHS[width])
        expect(playground.page.get_by_label("API key")).to_be_visible()
        playground.page.wait_for_timeout(100)  # as above
        assert is_uncovered(playground.page.get_by_role("alert"))
        playground.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_an_answer_with_its_risk_fits_a_screen(opened: Opener, scheme: str) -> None:
    (answer,) = opened(viewport=WIDTHS["phone"], color_scheme=scheme).ask("doubt")
    page = answer.page
    page.wait_for_timeout(100)  # as above
    figures = answer.locator(".figures")
    for part in (page.locator(".question"), answer.locator(".tokens"), answer.locator(".badge"), answer):
        assert is_uncovered(part)
    expect(figures).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    answer.get_by_text("Details").focus()
    page.keyboard.press("Enter")
    expect(figures).to_be_visible()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("turns", [1, 3])
def test_the_question_and_the_risk_of_the_last_answer_are_in_view(opened: Opener, width: str, turns: int) -> None:
    playground = opened(viewport=WIDTHS[width] | {"height": 560})  # too low for the figures
    for _ in range(turns):
        (answer,) = playground.ask("doubt")
    playground.page.wait_for_timeout(100)  # as above
    for part in (playground.page.locator(".question").last, answer.locator(".badge"), answer.locator(".tokens")):
        assert is_uncovered(part)


def test_on_a_phone_two_stages_are_swiped(opened: Opener) -> None:
    playground = opened(viewport=WIDTHS["phone"])
    playground.page.get_by_label("Compare with").select_option("m:base")
    first, second = playground.ask("doubt")
    left = [answer.evaluate("e => e.getBoundingClientRect().left") for answer in (first, second)]
    assert left[0] < 20
    assert 300 < left[1] < 390  # its edge can be seen
    first.hover()
    playground.page.mouse.wheel(300, 0)
    playground.page.wait_for_function(
        "e => e.getBoundingClientRect().right <= 390", arg=second.element_handle(), timeout=5000
    )
    assert playground.page.evaluate("document.documentElement.scrollWidth") == 390
