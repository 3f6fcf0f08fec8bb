"""A process that tries grammars, and may be killed: one line of JSON in, one line of JSON out.

It imports little, so that a new process is there at once after one had to be killed.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys

from llguidance import LLMatcher, LLTokenizer
from llguidance.gbnf_to_lark import any_to_lark

from server.system.child_process import protect

MEMORY_BYTES = 1 << 30
STEPS = 256
"""Bytes of a random text that the grammar allows. A grammar that is slow or fails on it would do so in the engine."""


def examine(kind: str, grammar: str) -> dict[str, str]:
    """The `grammar` for the engine, or the `error`. `kind` is `lark` for a client's text in Lark or GBNF, else
    `llguidance`."""
    if kind == "lark":
        grammar = any_to_lark(grammar)
        matcher = LLMatcher(TOKENIZER, LLMatcher.grammar_from_lark(grammar), log_level=0)
    else:
        matcher = LLMatcher(TOKENIZER, grammar, log_level=0)
    choose = random.Random(0).choice
    for _ in range(STEPS):
        allowed = int.from_bytes(matcher.compute_bitmask(), "little") if not matcher.is_error() else 0
        text_bytes = [byte for byte in range(256) if allowed >> byte & 1]
        if not text_bytes or not matcher.consume_token(choose(text_bytes)):
            break
    return {"error": matcher.get_error()} if matcher.is_error() else {"grammar": grammar}


def main(seconds: float) -> None:
    """Try grammars, each for at most `seconds` of CPU time."""
    protect()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print("ready", flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process
        try:
            found = examine(**json.loads(line))
        except Exception as error:  # any error of the conversion is a fault of the grammar
            found = {"error": str(error)}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(found), flush=True)


TOKENIZER = LLTokenizer("byte")

if __name__ == "__main__":
    main(float(sys.argv[1]))
