"""docs/flags.md is what the code says."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

from scripts.flags import PAGE, VARIABLES, page
from server.process.flags import add_flags
from tests.support.paths import ROOT

NAME = re.compile(r"(TOKENFORMER|VLLM|OPENAI|OMP|KMP)_[A-Z_0-9]+|LD_PRELOAD|CUSTOM_SCRIPT_FILENAME")


def constants(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m scripts.flags"


def test_every_flag_of_ours_is_in_a_table() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_flags(parser)
    listed = re.findall(r"^\| `(--[a-z-]+)", PAGE.read_text(), re.MULTILINE)
    assert listed == [action.option_strings[0] for action in parser._actions]


def test_every_variable_that_the_code_reads_or_sets_is_in_the_table() -> None:
    files = [file for room in ("server", "model_impl") for file in (ROOT / room).rglob("*.py")]
    named = {name for file in files for name in constants(file) if NAME.fullmatch(name)}
    assert len(named) > 10
    assert named <= VARIABLES.keys()


def test_links_lead_to_headings() -> None:
    for file, anchor in re.findall(r"\]\(([\w/.-]+\.md)(?:#([\w-]+))?\)", PAGE.read_text()):
        text = (PAGE.parent / file).read_text()
        headings = {
            re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall("^#+ (.+)", text, re.M)
        }
        assert not anchor or anchor in headings, (file, anchor)
