"""A file of one of the server's own pages as a response, under a content security policy."""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


def content_security_policy(*, images: str = "'self'") -> str:
    """Nothing but files of this server."""
    own = [f"{kind}-src 'self'" for kind in ("script", "style", "connect")]
    denied = [f"{what} 'none'" for what in ("base-uri", "form-action", "frame-ancestors")]
    return "; ".join(["default-src 'none'", *own, f"img-src {images}", *denied])


def static_file(path: Path, policy: str = content_security_policy()) -> FileResponse:
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=headers(policy))


def headers(policy: str = content_security_policy()) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # a page and its scripts change together
    }
