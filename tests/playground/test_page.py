"""The page's behaviour: models, conversations, failures, keyboard, screen reader, small screens."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.playground.conftest import Opener
from tests.playground.script import SCRIPT
from tests.support.browser import Playground, detail
from tests.support.scripted import scripted


def test_the_models_and_their_stages(opened: Opener) -> None:
    page = opened().page
    assert page.get_by_label("Model", exact=True).get_by_role("option").all_inner_texts() == ["m", "m:base"]
    expect(page.locator("#model-card")).to_have_text("stage news · 40 parameter tokens · calibrated")
    page.get_by_label("Model", exact=True).select_option("m:base")
    expect(page.locator("#model-card")).to_have_text("stage base · 32 parameter tokens · not calibrated")


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


def test_a_stopped_answer_stays_in_the_conversation(opened: Opener) -> None:
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
        ("given up", "The server failed: out of memory"),
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


def test_empty_and_cut_off_answers_have_a_note(opened: Opener) -> None:
    playground = opened()
    (answer,) = playground.ask("empty")
    expect(answer).to_contain_text("The answer is empty.")
    (answer,) = playground.ask("long")
    expect(answer).to_contain_text("Cut off at the token limit.")


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


def test_the_password_that_opens_the_page_is_the_key_for_all_it_asks(browser: Browser) -> None:
    with scripted(SCRIPT, api_key="secret", gate=True) as address:
        refused = browser.new_page(http_credentials={"username": "anyone", "password": "wrong"})
        answer = refused.goto(f"{address}/playground")
        assert answer is not None
        assert answer.status == 401
        refused.close()
        playground = Playground(browser, address, http_credentials={"username": "anyone", "password": "secret"})
        expect(playground.page.get_by_label("Model", exact=True)).to_have_value("m")
        expect(playground.page.get_by_label("API key")).to_have_value("")
        (told,) = playground.ask("held back")
        expect(told.locator(".tokens")).to_have_text("One two")
        assert playground.problems == []
        playground.context.close()


def test_by_keyboard_alone(opened: Opener) -> None:
    page = opened().page
    question = page.get_by_role("textbox", name="Question")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
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
    """Every control has an accessible name, no id is given twice, and every reference to an id leads to one."""
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
