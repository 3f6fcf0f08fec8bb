"""The served playground: its files, their headers, and no reference to anything elsewhere."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.clients.playground.routes import FILES, FOLDER, PAGE, router
from tests.support.paths import ROOT

ALL = {PAGE.name: PAGE, **FILES}

NAMESPACE = "http://www.w3.org/2000/svg"
"""A name that looks like an address; nothing is fetched from it."""

app = FastAPI()
app.include_router(router)
client = TestClient(app)


def test_the_page_is_served_as_html() -> None:
    answer = client.get("/playground")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Tokenformer playground</title>" in answer.text


def test_nothing_but_the_pages_own_files_is_served() -> None:
    for name in (
        "index.html",
        "routes.py",
        "__init__.py",
        "nope.js",
        "..",
        "%2e%2e%2fapp.py",
        "..%2f..%2fpyproject.toml",
    ):
        assert client.get(f"/playground/{name}").status_code == 404, name


@pytest.mark.parametrize("path", ["/playground", *(f"/playground/{name}" for name in FILES)])
def test_every_file_is_served_with_the_security_headers(path: str) -> None:
    headers = client.get(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ALL.values(), ids=ALL)
def test_a_file_names_no_other_host_and_holds_no_inline_code(path: Path) -> None:
    text = path.read_text().replace(NAMESPACE, "")
    assert not re.search(r"(https?:|wss?:|[\"'(=]\s*)//", text)
    if path.suffix in (".html", ".svg"):
        assert not re.search(r"<style|\s(style|on\w+)=|javascript:", text)
        assert not re.findall(r"<script(?![^>]* src=)", text)
    if path.suffix == ".js":
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)


@pytest.mark.parametrize("path", ALL.values(), ids=ALL)
def test_what_a_file_refers_to_is_served(path: Path) -> None:
    text = path.read_text()
    referred = re.findall(r'(?:href|src)="playground/([^"]+)"', text) + re.findall(r'from "\./([^"]+)"', text)
    assert set(referred) <= set(FILES)


def test_an_installation_has_every_file() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for name in ALL:
        assert any(fnmatch(name, pattern) for pattern in setuptools["package-data"]["*"]), name
    assert (FOLDER / "__init__.py").exists()  # what makes the folder a package, whose data is installed
