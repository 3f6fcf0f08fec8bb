"""Texts that a stage of the demo checkpoint was trained on: `python -m demo.texts world-b > texts.jsonl`.

One epoch of every world that the stage has read: all stated facts twice in documents, and about half of them in a
chat. `serve --trace-corpus` takes such a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from evals.world.corpus import epoch_chats, epoch_documents
from evals.world.people import WORLD_A, WORLD_B

READ = {"base": (WORLD_A,), "world-b": (WORLD_A, WORLD_B)}
"""Growth stage -> the worlds whose texts it has read."""


def texts(stage: str, epoch: int = 0) -> Iterator[dict[str, Any]]:
    for world in READ[stage]:
        yield from ({"text": document} for document in epoch_documents(world, epoch))
        yield from ({"messages": chat.messages()} for chat in epoch_chats(world, epoch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=READ)
    for line in texts(parser.parse_args().stage):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
