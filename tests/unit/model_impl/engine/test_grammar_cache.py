"""The engine compiles a grammar once, and only its own requests wait for it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine import core
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_guidance import GuidanceGrammar
from vllm.v1.structured_output.request import StructuredOutputRequest

from model_impl.engine import grammar_cache
from model_impl.engine.grammar_cache import GrammarCache
from model_impl.plugin import register

TOKENIZER = LLTokenizer("byte")


class Backend:
    """Compiles regular expressions; `slow` takes until it `may_end`."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.began, self.may_end = Event(), Event()

    def compile_grammar(self, kind: Any, spec: str, stop_token_ids: Any = None) -> GuidanceGrammar:
        self.compiled.append(spec)
        self.began.set()
        if spec == "slow":
            self.may_end.wait(timeout=30)
        return GuidanceGrammar(LLMatcher(TOKENIZER, LLMatcher.grammar_from_regex(spec)), TOKENIZER, 256)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> GrammarCache:
    def bare(self: Any) -> None:
        self.backend, self.executor = Backend(), ThreadPoolExecutor(max_workers=1)
        self._use_async_grammar_compilation = True

    monkeypatch.setattr(StructuredOutputManager, "__init__", bare)
    return GrammarCache()


def asked(manager: GrammarCache, regex: str) -> StructuredOutputRequest:
    wanted = StructuredOutputRequest(StructuredOutputsParams(regex=regex))
    params = SimpleNamespace(all_stop_token_ids=set(), structured_outputs=wanted.params)
    request: Any = SimpleNamespace(structured_output_request=wanted, sampling_params=params, request_id="r")
    manager.grammar_init(request)
    return wanted


def ready(wanted: StructuredOutputRequest) -> GuidanceGrammar:
    if isinstance(wanted._grammar, Future):
        wanted._grammar.result(timeout=30)
    grammar = wanted.grammar
    assert isinstance(grammar, GuidanceGrammar)
    return grammar


def test_a_grammar_is_compiled_once_however_many_ask_at_the_same_time(manager: GrammarCache) -> None:
    manager.backend.may_end.set()  # type: ignore[union-attr]
    for wanted in [asked(manager, "slow") for _ in range(40)]:
        ready(wanted)
    assert manager.backend.compiled == ["slow"]  # type: ignore[union-attr]


def test_a_known_grammar_does_not_wait_for_one_that_is_being_compiled(manager: GrammarCache) -> None:
    backend: Any = manager.backend
    ready(asked(manager, "known"))
    backend.began.clear()
    slow = asked(manager, "slow")
    assert backend.began.wait(timeout=30)
    assert asked(manager, "known").is_grammar_ready
    assert not slow.is_grammar_ready
    backend.may_end.set()
    ready(slow)


def test_requests_with_the_same_grammar_go_on_apart(manager: GrammarCache) -> None:
    first, second, third = (ready(asked(manager, "ab")) for _ in range(3))
    assert first.accept_tokens("r", [ord("a")])
    assert second.accept_tokens("r", [ord("a"), ord("b")])
    assert first.validate_tokens([ord("b")]) == [ord("b")]
    assert third.validate_tokens([ord("b")]) == []


def test_the_cache_keeps_the_latest_used(manager: GrammarCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_cache, "KEPT", 2)
    for regex in ("a", "b", "a", "c", "a", "b"):
        ready(asked(manager, regex))
    assert manager.backend.compiled == ["a", "b", "c", "b"]  # type: ignore[union-attr]


def test_engines_compile_grammars_by_the_cache() -> None:
    register()
    assert core.StructuredOutputManager is GrammarCache
