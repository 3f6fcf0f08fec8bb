"""The page's controls: example questions, settings, a full context, and what can be done with an answer."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.playground.conftest import Opener
from tests.playground.controls import button, question
from tests.playground.script import SCRIPT
from tests.support import scripted as scripts
from tests.support.browser import Playground
from tests.support.demo_server import DEMO
from tests.support.scripted import last, scripted, token, words

KEEPS = {"permissions": ["clipboard-read", "clipboard-write"]}
EXAMPLES: list[dict[str, Any]] = json.loads((DEMO / "playground.json").read_text())


def contents(playground: Playground) -> list[str]:
    """The messages of the last request."""
    return [message["content"] for message in playground.bodies[-1]["messages"]]


def test_the_checkpoints_questions_are_asked_by_a_click(browser: Browser) -> None:
    script = {example["question"]: [*words(token("So", 0.2)), last()] for example in EXAMPLES}
    with scripted(SCRIPT | script) as address:
        playground = Playground(browser, address)
        chips = playground.page.get_by_role("list", name="Example questions").get_by_role("button")
        expect(chips).to_have_count(4)
        shown = [text.partition(":")[0] for text in chips.all_inner_texts()]
        assert shown == ["Known", "Unknown", "Ambiguous", "Two stages"]
        for example, asked in zip(EXAMPLES, (["m"], ["m"], ["m"], ["m", "m:base"]), strict=True):
            playground.bodies.clear()
            chips.filter(has_text=example["question"]).click()
            expect(button(playground, "Send")).to_be_visible()
            assert sorted(body["model"] for body in playground.bodies) == asked
            assert contents(playground) == [example["question"]]
            button(playground, "New chat").click()
        assert playground.problems == []
        playground.context.close()


def test_a_question_that_compares_a_stage_which_is_not_served_is_left_out(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "CARDS", [{"id": "m", "growth_stage": "news"}])
    page = opened().page
    expect(page.get_by_role("list", name="Example questions").get_by_role("button")).to_have_count(3)
    expect(page.get_by_label("Compare with")).to_be_hidden()


def test_what_a_model_cannot_report_is_not_offered(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = {"id": "stock", "capabilities": dict.fromkeys(["epistemic", "growth", "ensemble", "stages"], False)}
    monkeypatch.setattr(scripts, "CARDS", [stock, {"id": "full"}])
    page = opened().page
    radios, ensemble = page.get_by_role("radio"), page.get_by_role("checkbox", name="Ask an ensemble")
    page.get_by_role("button", name="Settings").click()
    offered = ["Entropy", "Variance", "Risk"]
    assert [radio.get_attribute("value") for radio in radios.all()] == [name.lower() for name in offered]
    expect(ensemble).to_be_hidden()
    page.get_by_label("Model", exact=True).select_option("full")
    expect(radios).to_have_count(5)
    page.get_by_role("radio", name="Epistemic").check(force=True)
    ensemble.check()
    expect(radios).to_have_count(6)
    page.get_by_label("Model", exact=True).select_option("stock")
    expect(radios).to_have_count(3)
    expect(page.get_by_role("radio", name="Entropy")).to_be_checked()
    expect(page.get_by_role("list", name="Scale of Entropy")).to_be_visible()


def test_system_prompt_and_limit_are_sent(opened: Opener) -> None:
    playground = opened()
    playground.ask("counted")
    assert "max_tokens" not in playground.bodies[-1]
    assert contents(playground) == ["counted"]
    button(playground, "Settings").click()
    playground.page.get_by_label("System prompt").fill("Be brief.")
    playground.page.get_by_label("Max tokens").fill("7")
    playground.ask("counted")
    assert playground.bodies[-1]["max_tokens"] == 7
    assert [message["role"] for message in playground.bodies[-1]["messages"]] == ["system", "user", "assistant", "user"]
    assert contents(playground)[0] == "Be brief."


def test_the_gauge_shows_how_full_the_context_is_and_earlier_turns_can_be_forgotten(opened: Opener) -> None:
    playground = opened()
    gauge = playground.page.get_by_role("meter", name="Context")
    expect(gauge).to_be_hidden()
    playground.ask("counted")
    assert gauge.evaluate("e => [e.value, e.max]") == [20, 100]
    expect(playground.page.get_by_text("20 / 100")).to_be_visible()
    expect(button(playground, "Forget earlier turns")).to_be_hidden()
    playground.ask("many")
    button(playground, "Forget earlier turns").click()
    expect(gauge).to_be_hidden()
    expect(playground.page.get_by_text("The model is no longer told what stands above.")).to_be_visible()
    playground.ask("counted")
    assert contents(playground) == ["counted"]
    playground.ask("counted")
    assert contents(playground) == ["counted", "Done", "counted"]


def test_a_conversation_that_is_too_long_goes_on_without_its_beginning(opened: Opener) -> None:
    playground = opened()
    playground.ask("held back")
    playground.ask("too much")
    expect(playground.page.get_by_role("alert")).to_contain_text("The conversation is too long")
    button(playground, "Forget earlier turns and ask again").click()
    expect(playground.page.get_by_role("article").last.locator(".tokens")).to_have_text("Alone")
    assert contents(playground) == ["too much"]
    expect(playground.page.get_by_role("alert")).to_have_count(0)
    expect(question(playground)).to_have_value("")
    playground.ask("counted")
    assert contents(playground) == ["too much", "Alone", "counted"]


@pytest.mark.parametrize("asked", ["nonsense", "silent"])
def test_a_question_that_got_no_answer_is_kept_in_the_box(opened: Opener, asked: str) -> None:
    playground = opened()
    playground.send(asked)
    if asked == "silent":
        button(playground, "Stop").click()
    expect(question(playground)).to_have_value(asked)
    expect(playground.page.locator(".conversation > li")).to_have_count(1)
    playground.ask("counted")  # takes its place
    expect(playground.page.locator(".conversation > li")).to_have_count(1)
    assert contents(playground) == ["counted"]


def test_a_stopped_answer_keeps_its_text_and_shows_its_entropy(opened: Opener) -> None:
    playground = opened()
    playground.send("slow")
    expect(playground.page.get_by_role("option", name="First")).to_be_visible()
    button(playground, "Stop").click()
    answer = playground.page.get_by_role("article")
    expect(answer).to_contain_text("Stopped.")
    expect(answer.locator(".badge")).to_have_text("highest entropy 0.20 nats")
    expect(answer.locator(".tokens")).to_have_text("First")
    expect(question(playground)).to_have_value("")


def test_retry_and_edit_take_the_place_of_the_last_turn(opened: Opener) -> None:
    playground = opened()
    playground.ask("held back")
    playground.ask("counted")
    expect(button(playground, "Retry")).to_have_count(1)
    expect(button(playground, "Show as curl")).to_have_count(2)
    button(playground, "Retry").click()
    expect(button(playground, "Send")).to_be_visible()
    assert contents(playground) == ["held back", "One two", "counted"]
    button(playground, "Edit").click()
    expect(question(playground)).to_be_focused()
    expect(question(playground)).to_have_value("counted")
    playground.ask("many")
    assert contents(playground) == ["held back", "One two", "many"]
    shown = playground.page.locator(".conversation .question").all_inner_texts()
    assert shown == ["held back", "many"]


def test_the_tooltip_goes_with_its_token(opened: Opener) -> None:
    playground = opened()
    (answer,) = playground.ask("counted")
    answer.get_by_role("option").hover()
    expect(playground.page.get_by_role("tooltip")).to_be_visible()
    playground.page.evaluate("document.querySelector('.conversation').replaceChildren()")
    playground.page.evaluate("dispatchEvent(new Event('resize'))")
    expect(playground.page.get_by_role("tooltip")).to_be_hidden()


def test_an_edit_is_given_up_by_escape(opened: Opener) -> None:
    playground = opened()
    playground.ask("held back")
    button(playground, "Edit").click()
    question(playground).press("Escape")
    playground.ask("counted")
    assert contents(playground) == ["held back", "One two", "counted"]


@pytest.mark.parametrize("secure", [True, False])
def test_an_answer_can_be_copied(opened: Opener, secure: bool) -> None:
    """Also on a page without TLS, where browsers offer no clipboard."""
    playground = opened(**KEEPS)
    (answer,) = playground.ask("held back")
    if not secure:
        playground.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    answer.get_by_role("button", name="Copy").click()
    expect(answer.get_by_role("button", name="Copied")).to_be_visible()
    question(playground).focus()
    playground.page.keyboard.press("Control+V")
    expect(question(playground)).to_have_value("One two")


def test_a_request_is_shown_as_a_command_that_sends_the_same(opened: Opener) -> None:
    playground = opened(**KEEPS)
    button(playground, "Settings").click()
    playground.page.get_by_label("System prompt").fill('Don\'t "guess" $HOME `ls`.')
    playground.page.get_by_label("API key").fill("secret")
    playground.ask("counted")
    button(playground, "Show as curl").click()
    dialog = playground.page.get_by_role("dialog", name="The same request by curl")
    command = dialog.locator("code").inner_text()
    assert "secret" not in command
    program, url, *options = shlex.split(command.replace("\\\n", ""))
    assert (program, url) == ("curl", f"{playground.url}/v1/chat/completions")
    assert options[:4] == ["-H", "Content-Type: application/json", "-H", "Authorization: Bearer $OPENAI_API_KEY"]
    sent = playground.bodies[-1]
    assert json.loads(options[-1]) == {name: sent[name] for name in sent if name not in ("stream", "stream_options")}
    playground.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_conversation_is_exported_with_all_numbers(opened: Opener, tmp_path: Path) -> None:
    playground = opened()
    expect(button(playground, "Export")).to_be_disabled()
    playground.ask("doubt")
    with playground.page.expect_download() as download:
        button(playground, "Export").click()
    assert download.value.suggested_filename == "tokenformer-chat.json"
    download.value.save_as(tmp_path / "chat.json")
    (turn,) = json.loads((tmp_path / "chat.json").read_text())["turns"]
    assert turn["question"] == "doubt"
    (answer,) = turn["answers"]
    assert answer["text"] == "🙂 Lisbon."
    assert [found["entropy"] for found in answer["tokens"]] == [0.1, 2.0, 0.1]
    assert answer["uncertainty"]["risk"] == 0.71
    assert answer["request"]["messages"] == [{"role": "user", "content": "doubt"}]


def test_by_keyboard_alone(opened: Opener) -> None:
    """Settings, an answer's buttons, the dialog and the tints are reached by Tab, and focus is never lost."""
    playground = opened()
    page = playground.page
    playground.ask("counted")

    def tab_to(element: Locator, key: str = "Tab") -> None:
        for _ in range(30):
            if element.evaluate("e => e === document.activeElement"):
                return
            page.keyboard.press(key)
        raise AssertionError(f"{element} is not reached")

    tab_to(button(playground, "Settings"))
    page.keyboard.press("Enter")
    tab_to(page.get_by_label("System prompt"))
    page.keyboard.press("Escape")
    expect(page.get_by_label("System prompt")).to_be_hidden()
    expect(button(playground, "Settings")).to_be_focused()
    tab_to(button(playground, "Show as curl"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(button(playground, "Show as curl")).to_be_focused()
    tab_to(page.get_by_role("radio", name="Entropy"))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("list", name="Scale of Variance")).to_be_visible()
    tab_to(button(playground, "Retry"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(button(playground, "Send")).to_be_focused()
