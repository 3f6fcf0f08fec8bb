"""The playground in a headless Chromium, as a user sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
INSTALL = "needs Chromium; on Debian: apt-get install chromium"


@contextmanager
def launched() -> Iterator[Browser]:
    """The system's Chromium; Playwright has none of its own here."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        try:
            yield browser
        finally:
            browser.close()


class Playground:
    """The page at `url`. `problems` collects its errors and violations of its content security policy."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.url = url
        self.context = browser.new_context(**{"reduced_motion": "reduce"} | context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.problems: list[str] = []
        self.bodies: list[Any] = []
        """The bodies of all requests to the API, in order."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._see)
        self.page.goto(f"{url}/playground")

    def _hear(self, message: ConsoleMessage) -> None:
        refused = message.text.startswith("Failed to load resource")  # an error that the page has to show itself
        if message.type in ("error", "warning") and not refused:
            self.problems.append(message.text)

    def _see(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.problems.append(f"asked for {request.url}")
        if request.method == "POST":
            self.bodies.append(request.post_data_json)

    def send(self, question: str) -> None:
        self.page.get_by_role("textbox", name="Question").fill(question)
        self.page.get_by_role("button", name="Send").click()

    def ask(self, question: str) -> list[Locator]:
        """The answers to `question`, one for each model asked, when they are complete."""
        self.send(question)
        self.page.get_by_role("button", name="Send").wait_for()
        return self.page.locator(".conversation > li").last.get_by_role("article").all()


def token(answer: Locator, text: str) -> Locator:
    """The token of an answer with exactly this text, whatever spaces surround it."""
    found = [option for option in answer.get_by_role("option").all() if (option.text_content() or "").strip() == text]
    assert len(found) == 1, f"{text!r} is {len(found)} of the answer's tokens"
    return found[0]


def level(element: Locator) -> int:
    """The level of the tint, 0 to 8."""
    return int(element.get_attribute("data-level") or "")


def detail(page: Page) -> dict[str, str]:
    """The numbers that the tooltip shows, by name."""
    box = page.get_by_role("tooltip")
    return dict(zip(box.locator("dt").all_inner_texts(), box.locator("dd").all_inner_texts(), strict=True))
