"""Controls of the page, and whether they can be seen."""

from __future__ import annotations

from playwright.sync_api import Locator

from tests.support.browser import Playground

WIDTHS = {"wide": {"width": 1280, "height": 720}, "phone": {"width": 390, "height": 844}}


def button(playground: Playground, name: str) -> Locator:
    return playground.page.get_by_role("button", name=name)


def question(playground: Playground) -> Locator:
    return playground.page.get_by_role("textbox", name="Question")


def is_uncovered(element: Locator) -> bool:
    """Whether nothing lies on top of the element, and it is within the window."""
    found = element.evaluate(
        """e => [0.1, 0.9].every(part => {
        const box = e.getBoundingClientRect();
        const top = document.elementFromPoint(box.x + box.width / 2, box.y + part * box.height);
        return e.contains(top);
        })"""
    )
    return bool(found)
