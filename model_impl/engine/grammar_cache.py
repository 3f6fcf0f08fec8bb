"""A cache of the engine's compiled grammars.

vLLM compiles a grammar for every request, on a thread or two for all of them. Many requests with one slow grammar, from
one API key, would keep the requests of every other key waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from threading import Lock
from typing import Any

from vllm.v1.engine import core
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_guidance import GuidanceGrammar
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar, StructuredOutputKey

KEPT = 32
"""The number of grammars kept. The largest that `server.engine.constraints.grammars` accepts take about 30 MB each."""


class GrammarCache(StructuredOutputManager):
    """Compiles each grammar once. Requests get copies, which share the compiled grammar and have their own state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compiled: OrderedDict[StructuredOutputKey, GuidanceGrammar] = OrderedDict()
        self.lock = Lock()

    def grammar_init(self, request: Request) -> None:
        """A cached grammar is returned at once, without waiting for grammars that are being compiled."""
        wanted = request.structured_output_request
        kept = self._copy(wanted.structured_output_key) if wanted is not None else None
        if wanted is not None and kept is not None:
            wanted.grammar = kept
        else:
            super().grammar_init(request)

    def _create_grammar(self, request: Request) -> StructuredOutputGrammar:
        wanted = request.structured_output_request
        assert wanted is not None
        key = wanted.structured_output_key
        if (kept := self._copy(key)) is not None:
            return kept
        made = super()._create_grammar(request)
        if isinstance(made, GuidanceGrammar):
            with self.lock:
                self.compiled[key] = _copied(made)
                if len(self.compiled) > KEPT:
                    self.compiled.popitem(last=False)
        return made

    def _copy(self, key: StructuredOutputKey) -> GuidanceGrammar | None:
        with self.lock:
            if key not in self.compiled:
                return None
            self.compiled.move_to_end(key)
            return _copied(self.compiled[key])


def _copied(grammar: GuidanceGrammar) -> GuidanceGrammar:
    return replace(grammar, ll_matcher=grammar.ll_matcher.deep_copy())


def install() -> None:
    """Make engines that this process starts later use this cache."""
    core.StructuredOutputManager = GrammarCache  # type: ignore[misc]
