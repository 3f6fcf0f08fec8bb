"""A soak test: ten minutes of everything at once, and a count of what is left afterwards.

    make soak        (or python -m loadtest.soak [--minutes 10] [--out FILE])

Starts a server of the demo checkpoint and sends it, from many clients at once, answers of all kinds, streams that are
read to the end, clients that go at any moment, bad requests, attacks, and bursts of more than the server takes on.
Beside them a victim asks for the same greedy stream again and again. The soak counts how requests ended, and samples
file descriptors, memory and threads of the server's processes. It fails if any answer was a 5xx, an attack was
accepted, the victim received two texts, a stream ended without a result or an error event, a probe failed, or requests
are left over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
from tqdm import tqdm

from loadtest import machine
from loadtest.attacks import Attacks
from tests.support.servers import serving

DEMO = Path(__file__).parents[1] / "demo" / "checkpoint"
NAME = "demo"
QUESTIONS = ["Who are you?", "What is the capital of Peru?", "What is the capital of Selkovia?", "What can you do?"]
CLIENTS = 24
SEQUENCES, TAKEN = 16, 32
BURST = 3 * TAKEN
PROBE_SECONDS = 1.0
SAMPLE_SECONDS = 10.0
REST_SECONDS = 15.0
"""Seconds for memory to be given back, before the last sample."""

GOOD: list[dict[str, Any]] = [
    {},
    {"logprobs": True, "top_logprobs": 5},
    {"temperature": 1, "n": 3, "max_tokens": 40},
    {"temperature": 1.5, "seed": 7, "max_tokens": 200, "ignore_eos": True},
    {"uncertainty": {"spans": True, "tokens": True}},
    {"uncertainty": {"ensemble": 8, "tokens": True}},
    {"uncertainty": False},
    {"model": f"{NAME}:base"},
    {"stop": ["."], "presence_penalty": 1.0},
    {"structured_outputs": {"regex": "[a-z]{12}"}},
]
BAD: list[dict[str, Any]] = [
    {"temperature": -1},
    {"n": 10**9},
    {"top_logprobs": 10**6, "logprobs": True},
    {"max_tokens": -5},
    {"logit_bias": {"99999999": 1}},
    {"seed": 2**70},
    {"uncertainty": "yes"},
    {"messages": []},
    {"model": "nobody"},
    {"messages": [{"role": "user", "content": "word " * 5000}]},
    {"structured_outputs": {"regex": "("}},
    {"chat_template": "{{ 1 }}"},
]


class Soak:
    def __init__(self, url: str, seconds: float) -> None:
        self.url, self.deadline, self.random = url, time.monotonic() + seconds, random.Random(0)
        self.ended: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.lost: list[str] = []
        self.probes: dict[str, list[float]] = {"/livez": [], "/readyz": [], "/metrics": []}
        self.failed_probes: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        """The victim's texts."""
        self.gaps: list[float] = []
        """Seconds between the victim's tokens."""

    def over(self) -> bool:
        return time.monotonic() >= self.deadline

    def body(self, kind: dict[str, Any]) -> dict[str, Any]:
        question = [{"role": "user", "content": self.random.choice(QUESTIONS)}]
        return {"model": NAME, "messages": question, "max_tokens": 60} | kind

    async def client(self, http: httpx.AsyncClient) -> None:
        kinds = [self.plain, self.plain, self.streamed, self.streamed, self.gone, self.bad]
        while not self.over():
            await self.random.choice(kinds)(http)

    async def plain(self, http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/chat/completions", json=self.body(self.random.choice(GOOD)))
        await self.count("plain", answer)

    async def bad(self, http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/chat/completions", json=self.body(self.random.choice(BAD)))
        await self.count("bad", answer)

    async def streamed(self, http: httpx.AsyncClient) -> None:
        body = self.body(self.random.choice(GOOD)) | {"stream": True}
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = [line async for line in answer.aiter_lines() if line]
        await self.count("streamed", answer)
        if answer.status_code != 200:
            return
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        reasons = [choice["finish_reason"] for event in events for choice in event.get("choices", ())]
        complete = lines[-1:] == ["data: [DONE]"] and sum(map(bool, reasons)) == body.get("n", 1)
        if not complete and not any("error" in event for event in events):
            self.lost.append(json.dumps(body))

    async def gone(self, http: httpx.AsyncClient) -> None:
        """A client that leaves at any moment, before the answer or within it."""
        body = self.body(self.random.choice(GOOD)) | {"stream": self.random.random() < 0.7}
        try:
            async with asyncio.timeout(self.random.uniform(0, 0.3)):
                answer = await http.post("/v1/chat/completions", json=body)
            self.ended["stayed after all"] += 1
            self.statuses[answer.status_code] += 1
        except TimeoutError:
            self.ended["gone"] += 1

    async def victim(self, http: httpx.AsyncClient) -> None:
        question = [{"role": "user", "content": QUESTIONS[0]}]
        body = {"model": NAME, "messages": question, "max_tokens": 200, "temperature": 0, "ignore_eos": True}
        while not self.over():
            async with http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
                text, last = "", None
                async for line in answer.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    now = time.perf_counter()
                    self.gaps += [now - last] if last else []
                    last = now
                    event = json.loads(line.removeprefix("data: "))
                    text += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
            if answer.status_code == 200:
                self.heard[text] += 1
            await self.count("victim", answer)

    async def bursts(self, http: httpx.AsyncClient) -> None:
        while not self.over():
            await asyncio.sleep(15)
            asked = (http.post("/v1/chat/completions", json=self.body(GOOD[0])) for _ in range(BURST))
            for answer in await asyncio.gather(*asked):
                self.ended["burst"] += 1
                self.statuses[answer.status_code] += 1

    async def probe(self, http: httpx.AsyncClient) -> None:
        while not self.over():
            for path, seconds in self.probes.items():
                began = time.perf_counter()
                answer = await http.get(path)
                seconds.append(time.perf_counter() - began)
                if answer.status_code != 200:
                    self.failed_probes[path] += 1
            await asyncio.sleep(PROBE_SECONDS)

    async def count(self, what: str, answer: httpx.Response) -> None:
        """And come again no sooner than the server asks for."""
        self.ended[what] += 1
        self.statuses[answer.status_code] += 1
        await asyncio.sleep(float(answer.headers.get("retry-after", 0)))


async def soak(run: Soak, pid: int, minutes: float) -> tuple[list[dict[str, float]], Attacks]:
    samples = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with (
        httpx.AsyncClient(base_url=run.url, timeout=120, limits=limits) as http,
        httpx.AsyncClient(base_url=run.url, timeout=120) as prober,
    ):
        tasks = [asyncio.create_task(run.client(http)) for _ in range(CLIENTS)]
        tasks += [asyncio.create_task(run.bursts(http)), asyncio.create_task(run.probe(prober))]
        attacks = Attacks(http, run.over, run.random)
        tasks += [asyncio.create_task(attack()) for attack in (attacks.costly, attacks.holding, attacks.trailers)]
        tasks.append(asyncio.create_task(run.victim(http)))
        with tqdm(total=round(60 * minutes), unit="s") as bar:
            while not run.over():
                samples.append(sample(pid))
                await asyncio.sleep(min(SAMPLE_SECONDS, max(run.deadline - time.monotonic(), 0)))
                bar.update(round(SAMPLE_SECONDS))
                bar.set_postfix_str(f"{sum(run.statuses.values())} answers, {run.ended['gone']} gone")
        await asyncio.gather(*tasks)
        await settled(prober)
        await asyncio.sleep(REST_SECONDS)
        samples.append(sample(pid))
    return samples, attacks


async def settled(http: httpx.AsyncClient) -> None:
    """Wait until the engine is idle; raises TimeoutError if any request is left."""
    async with asyncio.timeout(30):
        while any(value for value in (await left(http)).values()):
            await asyncio.sleep(0.2)


async def left(http: httpx.AsyncClient) -> dict[str, float]:
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    lines = (await http.get("/metrics")).text.splitlines()
    wanted = (*names, "tokenformer_queued_requests")
    return {line.split("{")[0].split()[0]: float(line.split()[-1]) for line in lines if line.startswith(wanted)}


def sample(pid: int) -> dict[str, float]:
    """Counts and memory of the API process, and the memory of the engine process."""
    server = psutil.Process(pid)
    engine = sum(child.memory_info().rss for child in server.children(recursive=True))
    return {
        "fds": server.num_fds(),
        "threads": server.num_threads(),
        "api_mib": round(server.memory_info().rss / 2**20, 1),
        "engine_mib": round(engine / 2**20, 1),
    }


def report(
    run: Soak, attacks: Attacks, samples: list[dict[str, float]], minutes: float, exit_code: int
) -> dict[str, Any]:
    middle = samples[len(samples) // 2]
    return {
        "minutes": minutes,
        "clients": CLIENTS,
        "ended": dict(run.ended),
        "statuses": {str(status): count for status, count in sorted(run.statuses.items())},
        "5xx": sum(count for status, count in run.statuses.items() if status >= 500),
        "lost_streams": len(run.lost),
        "attacks": dict(attacks.made),
        "attacks_taken_on": attacks.taken,
        "victim": {"texts": len(run.heard), "streams": run.heard.total(), "gap_milliseconds": spread(run.gaps)},
        "failed_probes": dict(run.failed_probes),
        "probe_milliseconds": {path: spread(found) for path, found in run.probes.items()},
        "resources": {"first": samples[0], "middle": middle, "last": samples[-1]},
        "exit_code_after_sigterm": exit_code,
        "machine": machine.describe(),
    }


def spread(seconds: list[float]) -> dict[str, float]:
    return {
        "median": milliseconds(statistics.median(seconds)),
        "p99": milliseconds(statistics.quantiles(seconds, n=100)[-1]),
        "max": milliseconds(max(seconds)),
    }


def milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=machine.results() / "soak.json", help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        flags = ["--trace", "--served-model-name", NAME, "--max-num-seqs", SEQUENCES, "--max-num-queued-reqs", TAKEN]
        with serving(DEMO, Path(directory) / "log", flags, NAME) as server:
            server.wait_until_ready()
            run = Soak(server.url, 60 * arguments.minutes)
            samples, attacks = asyncio.run(soak(run, server.process.pid, arguments.minutes))
            server.process.terminate()
            code = server.process.wait(60)
    found = report(run, attacks, samples, arguments.minutes, code)
    text = json.dumps(found, indent=2)
    print(text)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n")
    for lost in run.lost[:5]:
        print(f"lost: {lost}", file=sys.stderr)
    failed = [found[name] for name in ("5xx", "attacks_taken_on", "lost_streams", "failed_probes")]
    return int(any(failed) or found["victim"]["texts"] != 1 or bool(code))


if __name__ == "__main__":
    sys.exit(main())
