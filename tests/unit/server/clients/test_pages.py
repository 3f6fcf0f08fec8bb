"""The front page and the API reference: their files, their headers, and no reference to anything elsewhere."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.clients.pages.routes import FILES, FOLDER, docs, root

app = FastAPI(docs_url=None)
app.include_router(root)
app.include_router(docs)
client = TestClient(app)

OWN_PATHS = ["/", "/pages.css", "/docs", *(f"/docs/{name}" for name in FILES)]


@pytest.mark.parametrize("path", OWN_PATHS)
def test_every_file_is_served_under_a_policy_that_allows_no_other_origin(path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == ("'self' data:" if path == "/docs" else "'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_front_page_leads_to_the_reference_only_where_there_is_one() -> None:
    bare = FastAPI(openapi_url=None)
    bare.include_router(root)
    assert 'href="docs"' in client.get("/").text
    page = TestClient(bare).get("/").text
    assert 'href="docs"' not in page and 'href="playground"' in page and page.count("<li>") == page.count("</li>") == 4


def test_no_other_file_is_served() -> None:
    for name in ("index.html", "routes.py", "..%2froutes.py", "nope.js"):
        assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize("page", ["index.html", "docs.html"])
def test_links_are_relative_so_that_a_proxy_may_serve_everything_below_a_prefix(page: str) -> None:
    html = (FOLDER / page).read_text()
    links = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert len(links) > 2
    assert all(re.match(r"[a-z0-9]", link) and ":" not in link for link in links)
    assert "<style" not in html and " style=" not in html  # the policy forbids both
    assert not re.search(r"<script(?![^>]* src=)", html)


def test_swagger_ui_comes_with_the_installed_vllm() -> None:
    """Both builds of vLLM contain it, under Apache-2.0."""
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert FILES[name].stat().st_size > 100_000
