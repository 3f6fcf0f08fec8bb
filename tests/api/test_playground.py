"""The playground of the demo server in a real browser: known and invented answers look different."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

import httpx
import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Locator, expect

from demo.course import GEOGRAPHY, Kind
from tests.support.browser import Playground, detail, level, token
from tests.support.facts import capitals, question, symbol_of_the_newest_stage
from tests.support.servers import Server

pytestmark = pytest.mark.server


@pytest.fixture
def playground(browser: Browser, demo: Server) -> Iterator[Playground]:
    opened = Playground(browser, demo.url)
    expect(opened.page.get_by_label("Model", exact=True)).to_have_value("demo")
    yield opened
    assert opened.problems == []
    opened.context.close()


def test_it_is_served_beside_the_api(demo: Server) -> None:
    answer = httpx.get(f"{demo.url}/playground")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "/playground" not in httpx.get(f"{demo.url}/openapi.json").json()["paths"]  # it is no API


@pytest.mark.demo_only
def test_known_and_unknown_facts_look_different(playground: Playground) -> None:
    highest: dict[Kind, list[int]] = {"known": [], "invented": []}
    for kind, levels in highest.items():
        for fact in capitals(kind, 5):
            playground.page.get_by_role("button", name="New chat").click()
            (answer,) = playground.ask(question(fact))
            shown = answer.locator(".tokens").text_content()
            assert kind == "invented" or shown == fact.answer()
            levels.append(max(level(part) for part in answer.get_by_role("option").all()))
    assert max(highest["known"]) <= 2
    assert median(highest["invented"]) >= 6
    peak = max(answer.get_by_role("option").all(), key=level)
    back = "e => getComputedStyle(e).backgroundColor"
    assert peak.evaluate(back) != token(answer, "capital").evaluate(back)


def test_the_tooltip_has_the_apis_numbers(playground: Playground, client: OpenAI) -> None:
    unknown = capitals("invented", 3)[-1]
    (answer,) = playground.ask(question(unknown))
    told = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": question(unknown)}],
        temperature=0,
        logprobs=True,
        top_logprobs=5,
    )
    logprobs = told.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    peak = max(logprobs.content, key=lambda entry: entry.entropy)  # type: ignore[attr-defined]
    token(answer, peak.token.strip()).hover()
    numbers = detail(playground.page)
    assert float(numbers["Entropy"].removesuffix(" nats")) == pytest.approx(peak.entropy, abs=2e-3)  # type: ignore[attr-defined]
    assert float(numbers["Variance"].removesuffix(" nats²")) == pytest.approx(peak.variance, abs=2e-3)  # type: ignore[attr-defined]
    shown = playground.page.get_by_role("tooltip").locator(".alternatives li > span:first-child").all_text_contents()
    assert [text.removesuffix(" (chosen)").replace("␣", " ") for text in shown] == [
        other.token for other in peak.top_logprobs
    ]


@pytest.mark.demo_only
def test_the_example_questions_show_what_they_say(playground: Playground) -> None:
    """The unknown answer is the most uncertain; where several answers are valid, these are the likeliest."""

    def ask(label: str) -> list[Locator]:
        playground.page.get_by_role("button", name="New chat").click()
        playground.page.get_by_role("button", name=re.compile(f"^{label}: ")).click()
        playground.page.get_by_role("button", name="Send").wait_for()
        return playground.page.get_by_role("article").all()

    def peak(answer: Locator) -> int:
        return max(level(part) for part in answer.get_by_role("option").all())

    known, unknown = (peak(*ask(label)) for label in ("Known", "Unknown"))
    (torn,) = ask("Ambiguous")
    assert known <= 2 < peak(torn) < unknown
    max(torn.get_by_role("option").all(), key=level).hover()
    rows = playground.page.get_by_role("tooltip").locator(".alternatives li > span:first-child").all_inner_texts()
    asked = playground.page.locator(".question").inner_text()
    (lesson,) = (lesson for lesson in GEOGRAPHY.of("ambiguous") if asked in lesson.questions())
    for row in rows[:2]:
        assert any(value.startswith(row.split()[0].strip("␣")) for value in lesson.values)
    newest, base = ask("Two stages")
    assert peak(newest) < peak(base)
    assert newest.locator(".tokens").text_content() != base.locator(".tokens").text_content()


@pytest.mark.demo_only
def test_two_stages_side_by_side(playground: Playground) -> None:
    """The grown stage knows the element; the base does not."""
    fact = symbol_of_the_newest_stage()
    playground.page.get_by_label("Compare with").select_option("demo:base")
    grown, base = playground.ask(question(fact))
    assert [body["model"] for body in playground.bodies] == ["demo", "demo:base"]
    assert grown.locator(".tokens").text_content() == fact.answer()
    assert base.locator(".tokens").text_content() != fact.answer()
    grown_peak, base_peak = (
        max(level(part) for part in answer.get_by_role("option").all()) for answer in (grown, base)
    )
    assert grown_peak < base_peak
    expect(grown.locator(".growth li")).to_contain_text(["base +", "chemistry +"])
    expect(base.locator(".growth li")).to_contain_text(["base +"])


def test_a_refusal_of_the_server_is_shown(playground: Playground) -> None:
    (answer,) = playground.ask("where " * 600)
    expect(answer.get_by_role("alert")).to_contain_text("The server refused (400)")
    expect(answer.get_by_role("alert")).to_contain_text("maximum context length")
