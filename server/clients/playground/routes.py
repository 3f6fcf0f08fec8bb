"""`GET /playground`: a chat page that shows how sure the model is; it needs no build step."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from server.clients.static_file import MEDIA_TYPES, static_file

FOLDER = Path(__file__).parent
PAGE = FOLDER / "index.html"
"""Served at /playground only, from which its relative links start."""

FILES = {path.name: path for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES and path != PAGE}
"""All other files that are served, by name: a made-up path cannot lead anywhere else."""

EXAMPLES = "playground.json"
"""A file beside the weights: a list of questions to begin with, objects with `label`, `about`, `question` and
`compare`, the growth stage to compare with or null."""

router = APIRouter(include_in_schema=False)


@router.get("/playground")
async def page() -> FileResponse:
    return static_file(PAGE)


@router.get("/playground/examples")
async def examples(request: Request) -> Response:
    """The checkpoint's own questions; none where it has no such file."""
    file = Path(request.app.state.args.model) / EXAMPLES
    return static_file(file) if file.is_file() else JSONResponse([])


@router.get("/playground/{name}")
async def asset(name: str) -> FileResponse:
    if name not in FILES:
        raise HTTPException(404, f"the playground has no file {name!r}")
    return static_file(FILES[name])
