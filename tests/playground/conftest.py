"""The page in a real browser, against a server that answers from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.playground.script import SCRIPT
from tests.support.browser import Playground
from tests.support.scripted import scripted


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
