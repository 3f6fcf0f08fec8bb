"""`tokenformer serve` on the demo checkpoint, as its users meet it: a step of `make gpu-check`."""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from pathlib import Path

import httpx
from openai import OpenAI

from tests.demo_server import DEMO
from tests.servers import Server, serving

FLAGS = ("--served-model-name", "demo", "--kv-cache-memory-bytes", str(1 << 28))
QUESTION = [{"role": "user", "content": "Where does Anna Abel live?"}]


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
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30)
    choice = client.chat.completions.create(model="demo", messages=QUESTION, logprobs=True, temperature=0).choices[0]
    print("chat:", choice.message.content, choice.uncertainty, flush=True)
    assert choice.message.content and choice.uncertainty["mean_entropy"] >= 0
    assert all(token.entropy >= 0 for token in choice.logprobs.content)
    chunks = list(client.chat.completions.create(model="demo", messages=QUESTION, stream=True, temperature=0))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == choice.message.content, streamed
    metrics = httpx.get(f"{server.url}/metrics").text
    assert "tokenformer_token_entropy" in metrics and "vllm:" in metrics
    page = httpx.get(f"{server.url}/playground", follow_redirects=True)
    assert page.status_code == 200 and "<html" in page.text, page.status_code


if __name__ == "__main__":
    main()
