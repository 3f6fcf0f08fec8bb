"""docs/vllm.md has a row for every override of vLLM and uvicorn, and names tests that exist.

A method that overrides theirs is found by importing our classes, and a rebound name of their modules in our source.
Fields of request types, attributes of single objects, and functions that are passed by are not found: their rows are
kept by hand.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

ROOT = Path(__file__).parents[2]
REGISTER = (ROOT / "docs" / "vllm.md").read_text()
OVERRIDDEN, _, CALLED = REGISTER.partition("\n## Called, not overridden\n")
SYMBOLS = [set(re.findall(r"\w+", line.split("|")[1])) for line in OVERRIDDEN.splitlines() if line.startswith("| ")]
"""The words in the first cell of every row of an override."""

FOREIGN = ("vllm", "uvicorn")
SOURCES = {
    path: text
    for package in ("model_impl", "server")
    for path in (ROOT / package).rglob("*.py")
    if re.search(r"^\s*(from|import) (vllm|uvicorn)\b", text := path.read_text(), re.MULTILINE)
}


def is_foreign(name: str) -> bool:
    return name.partition(".")[0] in FOREIGN


def is_concrete(member: object) -> bool:
    return member is not None and not getattr(member, "__isabstractmethod__", False)


def overrides(own: type) -> Iterator[tuple[str, set[str]]]:
    """The methods of a class that override foreign ones, each with the foreign classes that have it.

    Protocols and abstract methods are implemented, not overridden. Methods of another module are a decorator's.
    """
    foreign = [base for base in own.__mro__ if is_foreign(base.__module__) and not getattr(base, "_is_protocol", False)]
    for name, member in vars(own).items():
        is_method = isinstance(member, FunctionType | classmethod | staticmethod | property)
        is_own = getattr(member, "__module__", own.__module__) == own.__module__
        owners = {base.__name__ for base in foreign if is_concrete(getattr(base, name, None))}
        if is_method and is_own and owners and (name == "__call__" or not name.startswith("__")):
            yield name, owners


def found_overrides() -> Iterator[tuple[type, str, set[str]]]:
    for path in SOURCES:
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for own in vars(module).values():
            if isinstance(own, type) and own.__module__ == module.__name__:
                yield from ((own, name, owners) for name, owners in overrides(own))


def rebound_names(source: str) -> set[str]:
    """Names that are assigned in modules (or classes) imported from a foreign package."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and is_foreign(node.module or "")
        for alias in node.names
    }
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    return {
        target.attr
        for target in targets
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in imported
    }


def test_every_method_that_overrides_one_of_vllm_has_a_row() -> None:
    found = list(found_overrides())
    known = {"forward", "_prepare_inputs", "add_lora", "data_received", "_create_chat_logprobs"}
    assert known <= {name for _, name, _ in found}
    missing = [
        f"{own.__module__}.{own.__name__}.{name} overrides {' or '.join(sorted(owners))}.{name}"
        for own, name, owners in found
        if not any(name in words and owners & words for words in SYMBOLS)
    ]
    assert not missing


def test_every_method_that_overrides_one_of_vllm_is_named_by_the_contract() -> None:
    others = (path for path in Path(__file__).parent.glob("*.py") if path != Path(__file__))
    contract = set(re.findall(r"\w+", " ".join(path.read_text() for path in others)))
    assert not sorted({name for _, name, _ in found_overrides()} - contract)


def test_every_rebound_name_of_a_module_of_vllm_has_a_row() -> None:
    found = {name for source in SOURCES.values() for name in rebound_names(source)}
    assert {"KVCacheManager", "get_mp_context"} <= found
    assert not sorted(name for name in found if not any(name in words for words in SYMBOLS))


def test_the_register_names_tests_and_files_that_exist() -> None:
    assert CALLED
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"\btest_\w+(?!\.py|\w)", REGISTER))
    assert named
    assert not sorted(name for name in named if f"def {name}(" not in tests)
    files = re.findall(r"`((?:model_impl|server|tests)/[\w/]+\.py)", REGISTER)
    assert not sorted(file for file in files if not (ROOT / file).is_file())
