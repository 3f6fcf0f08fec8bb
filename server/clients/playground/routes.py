"""`GET /playground`: a chat page that shows how sure the model is; it needs no build step."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

FOLDER = Path(__file__).parent
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PAGE = FOLDER / "index.html"
"""Served at /playground only, from which its relative links start."""

FILES = {path.name: path for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES and path != PAGE}
"""All other files that are served, by name: a made-up path cannot lead anywhere else."""

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect", "img")),
        *(f"{what} 'none'" for what in ("base-uri", "form-action", "frame-ancestors")),
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # the page and its scripts change together
}

router = APIRouter(include_in_schema=False)


@router.get("/playground")
async def page() -> FileResponse:
    return _file(PAGE)


@router.get("/playground/{name}")
async def asset(name: str) -> FileResponse:
    if name not in FILES:
        raise HTTPException(404, f"the playground has no file {name!r}")
    return _file(FILES[name])


def _file(path: Path) -> FileResponse:
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=HEADERS)
