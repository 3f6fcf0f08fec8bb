"""The trial of clients' grammars, before the engine gets them.

The engine uses llguidance, which bounds every step but not the compilation of a grammar. So a separate process compiles
it first, and is killed when it takes too long or too much memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http import HTTPStatus

from vllm.config import StructuredOutputsConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.backend_guidance import serialize_guidance_grammar
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.request import get_structured_output_key

from server.gate.admission import OVERLOAD_RETRY_SECONDS, Refusal, TurnedAway
from server.gate.context import CONTEXT
from server.requests.json_schemas import narrowed

BACKEND = "guidance"

GRAMMAR_SECONDS = 0.2
"""CPU time for one grammar. Most take milliseconds. The engine then takes about as long again."""

PATIENCE = 10.0
"""Seconds of real time for one grammar on a busy machine."""

TOO_MUCH = "The grammar takes too long or too much memory."

START_SECONDS = 30.0
"""Time for the process to start: a fifth of a second on an idle machine."""

MAX_GRAMMAR_BYTES = 1 << 16
REMEMBERED = 1024

MOST_WAITING = 16
"""New grammars that may wait for their trial, whatever the number of requests for each."""

LONGEST_ERROR = 200
LONGEST_QUOTE = 24
"""Characters of a grammar that its error may repeat: enough to show the place."""


class Grammars:
    """Tries one grammar at a time, and remembers the results."""

    def __init__(self, config: StructuredOutputsConfig) -> None:
        self.config = config
        self.found: dict[bytes, dict[str, str]] = {}
        self.process: Process | None = None
        self.turn = asyncio.Lock()
        self.waiting: Counter[bytes] = Counter()

    async def check(self, params: StructuredOutputsParams | None, parameter: str | None) -> None:
        """Raises VLLMValidationError, naming `parameter`, for a grammar that the engine must not get. Otherwise leaves
        `params` as vLLM's own check would, with a narrowed JSON schema."""
        if params is None or params.all_constraints_none():
            return
        try:
            self._narrow(params)
            kind, grammar = self._serialised(params)
        except (KeyError, RecursionError, TypeError, ValueError, VLLMValidationError) as error:
            raise VLLMValidationError(f"The grammar is not valid: {error}", parameter=parameter) from error
        if len(grammar) > MAX_GRAMMAR_BYTES:
            message = f"The grammar is larger than {MAX_GRAMMAR_BYTES:,} bytes."
            raise VLLMValidationError(message, parameter=parameter)
        key = hashlib.sha256(f"{kind} {grammar}".encode()).digest()
        if key not in self.found:
            ticket = CONTEXT.get().ticket
            with self._place(key), ticket.aside() if ticket else nullcontext():
                async with self.turn:
                    if key not in self.found:
                        self._remember(key, await self._try(kind, grammar, parameter))
        found = self.found[key]
        if not found:
            raise VLLMValidationError(TOO_MUCH, parameter=parameter)
        if "error" in found:
            reason = _without_quotes(" ".join(found["error"].partition("<state>")[0].split())[:LONGEST_ERROR], grammar)
            raise VLLMValidationError(f"The grammar is not valid: {reason}", parameter=parameter)
        if params.grammar is not None:
            params.grammar = found["grammar"]
        params._backend, params._backend_was_auto = BACKEND, False

    def _narrow(self, params: StructuredOutputsParams) -> None:
        """Narrow the JSON schema. One that is too large is left as it is; `check` refuses it."""
        text = json.dumps(params.json) if isinstance(params.json, dict) else params.json
        if text is not None and len(text) <= MAX_GRAMMAR_BYTES:
            params.json = narrowed(json.loads(text))

    @contextmanager
    def _place(self, key: bytes) -> Iterator[None]:
        """A place among the grammars that wait, shared by all requests for the grammar. Raises TurnedAway."""
        if key not in self.waiting and len(self.waiting) >= MOST_WAITING:
            message = f"{MOST_WAITING} new grammars wait to be tried already."
            raise TurnedAway(Refusal(HTTPStatus.TOO_MANY_REQUESTS, "grammars_full", message, OVERLOAD_RETRY_SECONDS))
        self.waiting[key] += 1
        try:
            yield
        finally:
            self.waiting[key] -= 1
            if not self.waiting[key]:
                del self.waiting[key]

    def _serialised(self, params: StructuredOutputsParams) -> tuple[str, str]:
        """The grammar as the engine will make it. GBNF is left as it is, as its conversion may take long."""
        if params.choice is not None and not params.choice:
            raise ValueError("there is nothing to choose from")
        kind, text = get_structured_output_key(params)
        if kind == StructuredOutputOptions.GRAMMAR:
            return "lark", text
        config = self.config
        compact, closed = config.disable_any_whitespace, config.disable_additional_properties
        return "llguidance", serialize_guidance_grammar(kind, text, compact, closed)

    async def _try(self, kind: str, grammar: str, parameter: str | None) -> dict[str, str]:
        """The result of the process; empty if the grammar took too much."""
        process = self.process
        if process is None or process.returncode is not None:
            process = await self._start()
        assert process.stdin is not None and process.stdout is not None
        line = b""
        try:
            async with asyncio.timeout(PATIENCE):
                process.stdin.write(json.dumps({"kind": kind, "grammar": grammar}).encode() + b"\n")
                line = await process.stdout.readline()
        except TimeoutError:
            raise VLLMValidationError(TOO_MUCH, parameter=parameter) from None
        finally:  # also if the client has gone: the next grammar would get the late answer
            if not line:
                await self.close()
        found: dict[str, str] = json.loads(line) if line else {}
        return found

    async def _start(self) -> Process:
        command = (sys.executable, "-P", "-m", "server.engine.constraints.grammar_worker", str(GRAMMAR_SECONDS))
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=2 * MAX_GRAMMAR_BYTES
        )
        self.process = process
        assert process.stdout is not None
        ready = b""
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await process.stdout.readline()
        finally:  # the first grammar would get the late line
            if not ready:
                await self.close()
        return process

    def _remember(self, key: bytes, found: dict[str, str]) -> None:
        self.found[key] = found
        if len(self.found) > REMEMBERED:
            del self.found[next(iter(self.found))]

    async def close(self) -> None:
        """End the process; the next grammar starts another."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


def _without_quotes(reason: str, grammar: str) -> str:
    """The reason, cut where it repeats much of the grammar."""
    for i in range(len(reason) - LONGEST_QUOTE):
        if reason[i : i + LONGEST_QUOTE + 1] in grammar:
            return f"{reason[:i]}..."
    return reason
