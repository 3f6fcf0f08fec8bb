"""Writes the answers in docs/api.md anew, from a server of the demo: `python -m scripts.api_examples URL`.

A command in a block `sh` is followed by its answer in a block `json`.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
BLOCKS = re.compile(r"```sh\n(curl .*?)```\n(.*?)```json\n(.*?)```", re.DOTALL)
WIDTH = 120


@dataclass(frozen=True)
class Example:
    path: str
    body: dict[str, Any]
    answer: dict[str, Any]

    def asked(self, url: str) -> dict[str, Any]:
        """The answer of the server at `url`."""
        found: dict[str, Any] = httpx.post(f"{url}{self.path}", json=self.body, timeout=60).json()
        return found


def examples() -> Iterator[Example]:
    for command, _, answer in BLOCKS.findall(PAGE.read_text()):
        yield _example(command, answer)


def _example(command: str, answer: str) -> Example:
    _, address, *options = shlex.split(command.replace("\\\n", " "))
    body = json.loads(options[options.index("-d") + 1])
    return Example("/" + address.split("/", 3)[3], body, json.loads(answer))


def written(value: Any, indent: str = "") -> str:
    """JSON in which what fits into a line stays on it."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    further = indent + " "
    if isinstance(value, list):
        return "[" + f",\n{further}".join(written(part, further) for part in value) + "]"
    parts: list[str] = []
    for name, part in value.items():
        text = f"{json.dumps(name)}: {written(part, further)}"
        last = parts[-1] if parts else ""
        if last and "\n" not in text + last and len(further) + len(last) + len(text) + 3 <= WIDTH:
            parts[-1] = f"{last}, {text}"
        else:
            parts.append(text)
    return "{" + f",\n{further}".join(parts) + "}"


def main(url: str) -> None:
    def replaced(found: re.Match[str]) -> str:
        command, between, _ = found.groups()
        answer = written(_example(command, "{}").asked(url))
        return f"```sh\n{command}```\n{between}```json\n{answer}\n```"

    PAGE.write_text(BLOCKS.sub(replaced, PAGE.read_text()))
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
