"""Unmodified load generators of others: every request that they send is answered."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from loadtest import bench
from tests.parity.environments import environment
from tests.support.demo_server import DEMO
from tests.support.servers import Server

REQUESTS, INPUT, OUTPUT, STREAMS = 48, 32, 16, 8


def vllm_bench(server: Server, folder: Path) -> str:
    load = ["--dataset-name", "random", "--random-input-len", str(INPUT), "--random-output-len", str(OUTPUT)]
    load += ["--num-prompts", str(REQUESTS), "--max-concurrency", str(STREAMS), "--disable-tqdm"]
    target = bench.Target(server.url, server.name, DEMO)
    found = []
    for api in (bench.CHAT, bench.TEXT):
        result = bench.start([*target.arguments(), *api, *load])
        assert (result["completed"], result["failed"]) == (REQUESTS, 0)
        assert result["total_output_tokens"] == REQUESTS * OUTPUT
        found.append(f"{api[-1]}: {result['completed']} of {REQUESTS}")
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
