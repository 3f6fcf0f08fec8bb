"""Load generators that others wrote, unmodified: every request they send is answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.demo_server import DEMO
from tests.parity.environments import environment
from tests.servers import Server

REQUESTS, INPUT, OUTPUT, STREAMS = 48, 32, 16, 8

BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""`vllm bench serve`. The program `vllm` of the CPU build cannot run it: it looks for a package of the name `vllm`,
which that build has not."""


def vllm_bench(server: Server, folder: Path) -> str:
    found = []
    for backend, endpoint in (("openai-chat", "/v1/chat/completions"), ("openai", "/v1/completions")):
        command = [sys.executable, "-c", BENCH_SERVE, "--backend", backend, "--endpoint", endpoint]
        command += ["--base-url", server.url, "--model", server.name, "--tokenizer", str(DEMO), "--ignore-eos"]
        command += ["--dataset-name", "random", "--random-input-len", str(INPUT), "--random-output-len", str(OUTPUT)]
        command += ["--num-prompts", str(REQUESTS), "--max-concurrency", str(STREAMS), "--disable-tqdm"]
        command += ["--save-result", "--result-dir", str(folder), "--result-filename", f"{backend}.json"]
        subprocess.run(command, check=True, timeout=600)
        result = json.loads((folder / f"{backend}.json").read_text())
        assert (result["completed"], result["failed"]) == (REQUESTS, 0)
        assert result["total_output_tokens"] == REQUESTS * OUTPUT
        found.append(f"{endpoint}: {result['completed']} of {REQUESTS}")
    return ", ".join(found)


def guidellm(server: Server, folder: Path) -> str:
    report = folder / "guidellm.json"
    command = [str(environment("guidellm") / "guidellm"), "run", "--disable-progress"]
    command += ["--backend", f"kind=openai_http,target={server.url},model={server.name}"]
    command += ["--profile", f"kind=concurrent,streams={STREAMS}"]
    command += ["--constraint", f"kind=max_requests,count={REQUESTS}"]
    command += ["--data", f"kind=synthetic_text,prompt_tokens={INPUT},output_tokens={OUTPUT}"]
    command += ["--tokenizer", f"kind=hf_auto,model={DEMO}", "--output", f"kind=json,path={report}"]
    subprocess.run(command, check=True, timeout=600, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert totals["successful"] == totals["total"] == REQUESTS
    return f"{totals['successful']} of {REQUESTS}"
