"""A simulation of one replica: vLLM's continuous batching, with the API process and the clients beside it.

Three processes work in turns on every token: the engine makes a step, the API process passes its tokens on, and the
client reads them. They share the machine's cores. A process works in turns on all that has arrived, as asyncio does, so
that requests which come together are ready together, at the end. Nothing here measures; `loadtest.capacity` does.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain

import numpy as np


@dataclass(frozen=True)
class Work:
    """Processor seconds of a process beside the model."""

    request: float = 0.0
    step: float = 0.0
    """Seconds for a message that carries the tokens of one step."""
    token: float = 0.0

    def of_step(self, tokens: int) -> float:
        return self.step + self.token * tokens


@dataclass(frozen=True)
class Replica:
    """The costs of a model, of the server around it, and of its clients; seconds."""

    decode: Mapping[int, float]
    """Rows -> a step in which every row makes a token."""
    prefill: Mapping[int, float]
    """Prompt tokens -> what they add to a step."""
    threads: int
    """Cores that a step uses."""
    lag: float = 0.0
    """Idle seconds of every request between client and engine: processes wait for each other's messages."""
    api: Work = Work()
    client: Work = Work()
    """Clients on the same machine; nothing where they are elsewhere."""
    cores: int = 2
    crowded: float = 1.0
    """The speed of a thread while all cores work, of that alone. Cores share caches and heat, or are halves of one."""
    max_rows: int = 64
    max_tokens: int = 2048

    def step(self, rows: int, prompt_tokens: int) -> float:
        return at(self.decode, rows) + at({0: 0.0, **self.prefill}, prompt_tokens)


def at(points: Mapping[int, float], x: float) -> float:
    """Straight lines between the points, of which the last one goes on; the first value before them."""
    places = sorted(points)
    if x > places[-1] and len(places) > 1:
        low, high = places[-2:]
        return points[high] + (points[high] - points[low]) * (x - high) / (high - low)
    return float(np.interp(x, places, [points[place] for place in places]))


SHORTEST = 1e-9
"""Seconds; less is rounding."""


@dataclass
class Request:
    """A request by its moments."""

    sent: float
    answer: int
    """Tokens."""
    left: int
    """Tokens that are still to come."""
    first: float = 0.0
    last: float = 0.0


@dataclass
class Piece:
    """A piece of work."""

    left: float
    """Seconds, of a process that does nothing else."""
    then: Callable[[], None]


@dataclass
class Process:
    """Works on its pieces in turns; one without threads is a way, on which they do not hold each other up."""

    threads: int = 1
    pieces: list[Piece] = field(default_factory=list)

    def add(self, seconds: float, then: Callable[[], None]) -> None:
        self.pieces.append(Piece(seconds, then))

    def work(self, seconds: float) -> list[Piece]:
        """Every piece gets so many seconds; gives those that are done."""
        for piece in self.pieces:
            piece.left -= seconds
        done = [piece for piece in self.pieces if piece.left <= SHORTEST]
        self.pieces = [piece for piece in self.pieces if piece.left > SHORTEST]
        return done


@dataclass(frozen=True)
class Limits:
    """The 99th percentiles that users put up with, in seconds."""

    first_token: float
    further_token: float

    def hold(self, requests: Sequence[Request]) -> bool:
        first = np.quantile([request.first - request.sent for request in requests], 0.99)
        further = np.quantile(
            [(request.last - request.first) / max(request.answer - 1, 1) for request in requests], 0.99
        )
        return bool(first <= self.first_token and further <= self.further_token)


def output_rate(replica: Replica, prompt: int, answer: int, requests: int, at_a_time: int) -> float:
    """Output tokens per second over the whole of a closed loop."""
    done = Simulation(replica, prompt, answer).closed(requests, at_a_time)
    return requests * answer / max(request.last for request in done)


def sustained_rate(replica: Replica, prompt: int, answer: int, limits: Limits, requests: int = 600) -> float:
    """The most requests per second, arriving at random (Poisson), of which 99 % are within the limits; 0 if none are.

    Every rate is tried with the same random numbers, to one per cent.
    """
    draw = random.Random(0)
    arrivals = list(accumulate(draw.expovariate(1) for _ in range(requests)))

    def holds(rate: float) -> bool:
        return limits.hold(Simulation(replica, prompt, answer).open([moment / rate for moment in arrivals]))

    high = output_rate(replica, prompt, answer, 4 * replica.max_rows, replica.max_rows) / answer
    low = high / 1000
    if not holds(low):
        return 0.0
    while high > 1.01 * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


class Simulation:
    """Requests with prompts of `prompt` tokens and answers of `answer`."""

    def __init__(self, replica: Replica, prompt: int, answer: int) -> None:
        self.replica, self.prompt, self.answer = replica, prompt, answer
        self.now = 0.0
        self.engine, self.api, self.client = Process(replica.threads), Process(), Process()
        self.way = Process(threads=0)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.done: list[Request] = []

    def closed(self, requests: int, at_a_time: int) -> list[Request]:
        """So many requests, `at_a_time` of them at any time: an answer is followed by the next request."""
        left = iter(range(requests))

        def send() -> None:
            if next(left, None) is not None:
                self.send()

        for _ in range(at_a_time):
            send()
        self._run(iter(()), send)
        return self.done

    def open(self, times: Sequence[float]) -> list[Request]:
        """Requests that arrive at these times, whatever the server has to do."""
        self._run(iter(times), lambda: None)
        return self.done

    def send(self) -> None:
        arrive = partial(self._arrive, Request(self.now, self.answer, self.answer))
        travel = partial(self.way.add, self.replica.lag, arrive)
        self.client.add(self.replica.client.request, partial(self.api.add, self.replica.api.request, travel))

    def _arrive(self, request: Request) -> None:
        self.waiting.append(request)
        if not self.engine.pieces:
            self._begin_step()

    def _begin_step(self) -> None:
        """As vLLM's scheduler: the running requests, and as many new ones as there is room for."""
        replica = self.replica
        room = min(replica.max_rows - len(self.running), (replica.max_tokens - len(self.running)) // self.prompt)
        new = [self.waiting.popleft() for _ in range(min(room, len(self.waiting)))]
        self.running += new
        rows = len(self.running)
        if rows:
            self.engine.add(replica.step(rows, len(new) * self.prompt), self._end_step)

    def _end_step(self) -> None:
        told = self.running
        for request in told:
            request.left -= 1
        ended = [request for request in told if not request.left]
        self.running = [request for request in told if request.left]
        read = partial(self._read, told, ended)
        pass_on = partial(self.client.add, self.replica.client.of_step(len(told)), read)
        self.api.add(self.replica.api.of_step(len(told)), pass_on)
        self._begin_step()

    def _read(self, told: Sequence[Request], ended: Sequence[Request]) -> None:
        for request in told:
            request.first = request.first or self.now
        for request in ended:
            request.last = self.now
            self.done.append(request)
            self.answered()

    def _run(self, arrivals: Iterator[float], answered: Callable[[], None]) -> None:
        """Until nothing is left to do. The processes that have work share the cores evenly."""
        self.answered = answered
        arrival = next(arrivals, None)
        while True:
            busy = [process for process in (self.engine, self.api, self.client, self.way) if process.pieces]
            if arrival is not None and (not busy or arrival <= self.now):
                self.now = max(self.now, arrival)
                self.send()
                arrival = next(arrivals, None)
                continue
            if not busy:
                return
            shares = self._shares(busy)
            ends = (min(piece.left for piece in one.pieces) / share for one, share in zip(busy, shares, strict=True))
            seconds = min(ends) if arrival is None else min(*ends, arrival - self.now)
            self.now += seconds
            done = [process.work(seconds * share) for process, share in zip(busy, shares, strict=True)]
            for piece in chain.from_iterable(done):
                piece.then()

    def _shares(self, busy: Sequence[Process]) -> list[float]:
        """The speed of each process' pieces. Steps on all cores were measured in the crowd that they are."""
        threads, cores = sum(process.threads for process in busy), self.replica.cores
        even = min(1.0, cores / max(threads, 1))
        crowded = self.replica.crowded if threads >= cores else 1.0
        return [
            even * (crowded if process.threads < cores else 1.0) / len(process.pieces) if process.threads else 1.0
            for process in busy
        ]
