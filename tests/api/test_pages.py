"""The front page and the API reference in a real browser, which reaches nothing but the server."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.servers import Server

pytestmark = pytest.mark.server


@pytest.fixture
def page(browser: Browser, demo: Server) -> Iterator[Page]:
    """A page that may have had no problems by the end of its test."""
    problems: list[str] = []
    with browser.new_context() as context:
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        opened.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        opened.on("pageerror", lambda error: problems.append(str(error)))
        host = urlsplit(demo.url).netloc
        opened.on(
            "request", lambda asked: None if urlsplit(asked.url).netloc in (host, "") else problems.append(asked.url)
        )
        yield opened
        assert problems == []


def test_the_front_page_leads_to_pages_that_are_there(page: Page, demo: Server) -> None:
    page.goto(demo.url)
    links = [link.get_attribute("href") or "" for link in page.get_by_role("link").all()]
    assert {"playground", "docs", "v1/models", "metrics"} <= set(links)
    for link in links:
        assert httpx.get(f"{demo.url}/{link}").status_code == 200, link


def test_the_reference_shows_the_routes_and_their_fields_without_internet(page: Page, demo: Server) -> None:
    page.goto(f"{demo.url}/docs")
    expect(page.get_by_role("heading", name="Tokenformer server")).to_be_visible()
    page.locator("#operations-default-score_given_text_v1_uncertainty_post button").first.click()
    expect(page.locator(".opblock.is-open")).to_contain_text("completion")


def test_vllms_pages_that_load_scripts_from_elsewhere_are_gone(demo: Server) -> None:
    assert httpx.get(f"{demo.url}/redoc").status_code == 404
    assert "://" not in httpx.get(f"{demo.url}/docs").text
