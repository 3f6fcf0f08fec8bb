"""Checks too slow for every run of the tests: `make parity`, or `python -m tests.parity lm-eval` for one of them.

One server of the demo checkpoint answers software that others wrote; the first call installs it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.parity.benchmarks import guidellm, vllm_bench
from tests.parity.detectors import finds_what_is_made_up
from tests.parity.environments import environment, version
from tests.parity.frameworks import asks
from tests.parity.fuzz import fuzz_others, fuzz_ours
from tests.parity.langchain import shows_entropies
from tests.parity.likelihoods import by_transformers, over_http
from tests.support.demo_server import DEMO
from tests.support.servers import Server, started

Check = Callable[[Server, Path], str]

CHECKS: dict[str, tuple[str | None, tuple[Check, ...]]] = {
    "instructor": ("instructor", (asks("instructor", "ask_instructor.py", 3),)),
    "pydantic-ai": ("pydantic-ai-slim", (asks("pydantic-ai-slim", "ask_pydantic_ai.py", 8),)),
    "llama-index": (
        "llama-index-llms-openai-like",
        (asks("llama-index-llms-openai-like", "ask_llama_index.py", 4),),
    ),
    "langchain": ("langchain-openai", (shows_entropies,)),
    "artefactual": ("artefactual", (finds_what_is_made_up,)),
    "lm-eval": ("lm-eval", (over_http, by_transformers)),
    "vllm-bench": (None, (vllm_bench,)),
    "guidellm": ("guidellm", (guidellm,)),
    "schemathesis": ("schemathesis", (fuzz_ours, fuzz_others)),
}
"""Name -> the environment it runs in, if it is not the server's, and what is checked."""

FLAGS = ("--served-model-name", "demo", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
FLAGS += ("--enable-tokenizer-info-endpoint",)  # for lm-eval's remote tokenizer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    wanted = parser.parse_args().checks or list(CHECKS)
    for name in wanted:
        if (tool := CHECKS[name][0]) is not None:
            environment(tool)
    lines, failed = [], 0
    with tempfile.TemporaryDirectory() as root, started(DEMO, Path(root) / "log", FLAGS, "demo") as server:
        for name in wanted:
            tool, checks = CHECKS[name]
            label = version(tool) if tool else name
            for number, run in enumerate(checks):
                folder = Path(root) / f"{name}-{number}"
                folder.mkdir()
                print(f"== {label}: {run.__name__}", flush=True)
                try:
                    lines.append(f"{label}, {run.__name__}: {run(server, folder)}")
                except Exception as error:  # the others are run all the same
                    lines.append(f"{label}, {run.__name__}: FAILED, {error}")
                    failed += 1
    print("\n".join(["== results", *lines, f"{len(lines) - failed} passed, {failed} failed"]))
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
