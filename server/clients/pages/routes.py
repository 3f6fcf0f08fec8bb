"""`GET /`, which leads to everything that a browser can open, and `GET /docs`, which shows the OpenAPI document.

Swagger UI comes with vLLM (Apache-2.0), so `/docs` works without internet; FastAPI's page loads it from elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import vllm
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse

from server.clients.static_file import content_security_policy, headers, static_file

FOLDER = Path(__file__).parent
SWAGGER = Path(vllm.__file__).parent / "entrypoints" / "serve" / "instrumentator" / "static"

FILES = {
    **{name: SWAGGER / name for name in ("swagger-ui.css", "swagger-ui-bundle.js")},
    "start.js": FOLDER / "start.js",
}
"""Files of /docs by name."""

DOCS_POLICY = content_security_policy(images="'self' data:")
"""Swagger UI's style sheet has its icons in it."""

root = APIRouter(include_in_schema=False)
docs = APIRouter(include_in_schema=False)


@root.get("/")
async def front_page(request: Request) -> HTMLResponse:
    """The links, but for that to the API reference where there is none (--disable-fastapi-docs)."""
    lines = (FOLDER / "index.html").read_text().splitlines(keepends=True)
    documented = bool(request.app.openapi_url)
    page = "".join(line for line in lines if documented or 'href="docs"' not in line)
    return HTMLResponse(page, headers=headers())


@root.get("/pages.css")
async def style() -> FileResponse:
    return static_file(FOLDER / "pages.css")


@docs.get("/docs")
async def docs_page() -> FileResponse:
    return static_file(FOLDER / "docs.html", DOCS_POLICY)


@docs.get("/docs/{name}")
async def docs_asset(name: str) -> FileResponse:
    if name not in FILES:
        raise HTTPException(404, f"the documentation has no file {name!r}")
    return static_file(FILES[name])
