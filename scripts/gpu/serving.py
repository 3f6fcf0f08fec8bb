"""`tokenformer serve` on the demo checkpoint, as its users see it: a step of `make gpu-check`."""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.support.demo_server import DEMO
from tests.support.servers import Server, serving

FLAGS = ("--served-model-name", "demo", "--kv-cache-memory-bytes", str(1 << 28))
QUESTION = [{"role": "user", "content": "What is the capital of Peru?"}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="the same: it is small enough")
    parser.parse_args()
    began = time.monotonic()
    log = Path(tempfile.mkdtemp()) / "log"
    with serving(DEMO, log, FLAGS, "demo") as server:
        try:
            server.wait_until_ready("/readyz")
            print(f"ready after {time.monotonic() - began:.1f} s", flush=True)
            ask(server)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(20)
            assert code == 0, f"ended with {code}"
            print(f"ended by SIGTERM within {time.monotonic() - began:.1f} s", flush=True)
        finally:
            print(log.read_text(errors="replace")[-8000:])


def ask(server: Server) -> None:
    asked: dict[str, Any] = {"model": "demo", "messages": QUESTION, "temperature": 0}
    with httpx.Client(base_url=server.url, timeout=30, follow_redirects=True) as client:
        choice = client.post("/v1/chat/completions", json=asked | {"logprobs": True}).json()["choices"][0]
        answer = choice["message"]["content"]
        print("chat:", answer, choice["uncertainty"], flush=True)
        assert answer and choice["uncertainty"]["mean_entropy"] >= 0
        assert all(token["entropy"] >= 0 for token in choice["logprobs"]["content"])
        streamed = client.post("/v1/chat/completions", json=asked | {"stream": True}).text
        lines = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: {")]
        deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == answer, streamed
        metrics = client.get("/metrics").text
        assert "tokenformer_token_entropy" in metrics and "vllm:" in metrics
        page = client.get("/playground")
        assert page.status_code == 200 and "<html" in page.text, page.status_code


if __name__ == "__main__":
    main()
