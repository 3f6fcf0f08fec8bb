"""Takes the screenshots that README.md shows: `make screenshots`. Serves the demo checkpoint itself; needs Chromium."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.browser import CHROMIUM, INSTALL, Playground, launched, level
from tests.support.facts import KNOWN, UNKNOWN, question, symbol_of_the_newest_stage
from tests.support.servers import serving

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
NAME = "tokenformer-demo"
WINDOW = {"width": 1080, "height": 720}


def save(playground: Playground, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    playground.page.screenshot(path=IMAGES / f"{name}.png")
    print(f"wrote {(IMAGES / name).relative_to(ROOT)}.png")
    playground.context.close()


def main() -> None:
    if CHROMIUM is None:
        sys.exit(INSTALL)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(ROOT / "demo" / "checkpoint", Path(folder, "log"), ["--served-model-name", NAME]) as server,
        launched() as browser,
    ):
        server.wait_until_ready()
        for scheme, suffix in (("light", ""), ("dark", "-dark")):
            playground = Playground(browser, server.url, viewport=WINDOW, color_scheme=scheme)
            playground.ask(KNOWN)
            save(playground, f"playground-known{suffix}")
            playground = Playground(browser, server.url, viewport=WINDOW, color_scheme=scheme)
            (answer,) = playground.ask(UNKNOWN)
            max(answer.get_by_role("option").all(), key=level).hover()
            save(playground, f"playground-unknown{suffix}")
        playground = Playground(browser, server.url, viewport=WINDOW | {"height": 820}, color_scheme="light")
        playground.page.get_by_label("Compare with").select_option(f"{NAME}:base")
        playground.ask(question(symbol_of_the_newest_stage()))
        save(playground, "playground-stages")


if __name__ == "__main__":
    main()
