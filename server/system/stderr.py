"""Messages of the server process to whoever started it."""

import sys


def say(text: str) -> None:
    print(f"tokenformer: {text}", file=sys.stderr, flush=True)
