"""`vllm bench serve`, the load generator that all measurements over HTTP stand on.

    python -m loadtest.bench --base-url http://127.0.0.1:8000 --model tokenformer-demo --tokenizer demo/checkpoint ...

takes all of its arguments. The program `vllm` of the CPU build cannot run it: it looks for a package of the name
`vllm`, which that build lacks. `run` does the same in this process, as importing vLLM takes longer than measuring.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.prompts import prompts

PERCENTILES = (50, 90, 99)
LATENCIES = ("ttft", "tpot", "itl", "e2el")
"""To the first token, per token after it, between two chunks of a stream, to the end of the answer; milliseconds."""

CHAT = ("--backend", "openai-chat", "--endpoint", "/v1/chat/completions")
TEXT = ("--backend", "openai", "--endpoint", "/v1/completions")


class FailedRequests(RuntimeError):
    """The server did not answer every request, so that the figures are useless."""


@dataclass(frozen=True)
class Target:
    """The target of a load: a model's name at a server, and the checkpoint with its tokenizer."""

    url: str
    model: str
    tokenizer: Path
    body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request's body."""

    def arguments(self) -> list[str]:
        percentiles = ",".join(map(str, PERCENTILES))
        named = ["--base-url", self.url, "--model", self.model, "--tokenizer", os.path.relpath(self.tokenizer)]
        return [*named, "--percentile-metrics", ",".join(LATENCIES), "--metric-percentiles", percentiles]


@dataclass(frozen=True)
class Load:
    """Streamed requests, each with a prompt of its own, and greedy answers of a fixed length."""

    requests: int
    prompt: int
    """Tokens, before the chat template."""
    output: int
    concurrency: int
    api: Sequence[str] = CHAT
    prefixes: int = 0
    """The number of shared beginnings, each three quarters of a prompt; 0 for none."""

    def arguments(self, dataset: Path) -> list[str]:
        """`dataset` is a file with its prompts, in the form that ShareGPT's conversations have."""
        lengths = ["--num-prompts", self.requests, "--sharegpt-output-len", self.output, "--ignore-eos"]
        sent = ["--max-concurrency", self.concurrency, "--temperature", 0]
        return [*self.api, "--dataset-name", "sharegpt", "--dataset-path", str(dataset), *map(str, [*lengths, *sent])]

    def __str__(self) -> str:
        return shlex.join(self.arguments(Path("PROMPTS")))


def run(target: Target, load: Load, options: Sequence[str] = ()) -> dict[str, Any]:
    """Its result, with the record of every single request. Raises FailedRequests.

    The prompts of one load are always the same. A salt separates their blocks in the KV cache, so that no run finds
    those of another.
    """
    body = json.dumps({"cache_salt": uuid.uuid4().hex, **target.body})
    report = io.StringIO()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as dataset, redirect_stdout(report):
        texts = prompts(target.tokenizer, load.requests, load.prompt, load.prefixes)
        json.dump([{"conversations": [{"value": text}, {"value": ""}]} for text in texts], dataset)
        dataset.flush()
        arguments = [*target.arguments(), *load.arguments(Path(dataset.name)), *options]
        result = start([*arguments, "--extra-body", body, "--save-detailed"])
    if result["failed"]:
        raise FailedRequests(f"{result['failed']} requests failed:\n{report.getvalue()}")
    return result


def start(arguments: Sequence[str]) -> dict[str, Any]:
    """Run `vllm bench serve` with these arguments and return its result."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.benchmarks.serve import add_cli_args, main
    from vllm.plugins import load_general_plugins
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    load_general_plugins()  # a tokenizer is looked for by the model's configuration, which is ours
    parser = FlexibleArgumentParser(prog="python -m loadtest.bench")
    add_cli_args(parser)
    result: dict[str, Any] = main(parser.parse_args(list(arguments)))
    return result


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """The figures kept of a result: rates, and percentiles of latencies in milliseconds."""
    latencies = {name: {f"p{p}": round(result[f"p{p}_{name}_ms"], 2) for p in PERCENTILES} for name in LATENCIES}
    return {
        "requests": result["completed"],
        "input_tokens": result["total_input_tokens"],
        "output_tokens": result["total_output_tokens"],
        "seconds": round(result["duration"], 2),
        "requests_per_second": round(result["request_throughput"], 2),
        "output_tokens_per_second": round(result["output_throughput"], 1),
        "milliseconds": latencies,
    }


if __name__ == "__main__":
    start(sys.argv[1:])
