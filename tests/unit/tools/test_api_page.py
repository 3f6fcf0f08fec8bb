"""docs/api.md has every field of ours as the pydantic models have it, and no code of an error that the server lacks."""

from __future__ import annotations

import ast
import importlib
import re
from http import HTTPStatus

import pytest
from pydantic import BaseModel

from scripts.api_examples import PAGE
from server.api.given_text import GivenTextChoice, GivenTextRequest, GivenTextResponse
from server.api.trace.route import TraceCorpus, TracedText, TracedToken, TraceRequest, TraceResponse
from server.gate.errors import OpenAIError
from server.requests.limits import RequestLimits
from server.requests.schemas import (
    ScoredChatCompletionRequest,
    ScoredCompletionLogprobs,
    ScoredCompletionRequest,
    ScoredToken,
    UncertaintyOptions,
)
from server.uncertainty.summary import SentenceUncertainty, Span, Uncertainty
from tests.support.fields import JsonField, own_fields
from tests.support.paths import ROOT

MODELS = (
    *(ScoredChatCompletionRequest, ScoredCompletionRequest, UncertaintyOptions, RequestLimits),
    *(Uncertainty, Span, SentenceUncertainty, ScoredToken, ScoredCompletionLogprobs),
    *(GivenTextRequest, GivenTextResponse, GivenTextChoice),
    *(TraceRequest, TraceResponse, TracedToken, TracedText, TraceCorpus, OpenAIError),
)
TABLES = re.compile(r"((?:<!-- fields of [\w.:]+ -->\n)+)\n\| field \| type \| .*\n\| -.*\n((?:\|.*\n)+)")


def rows(lines: str) -> dict[str, list[str]]:
    """Name of a field -> the other cells of its row."""
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines.splitlines()]
    return {name.strip("`"): rest for name, *rest in cells}


def tables() -> dict[type[BaseModel], dict[str, list[str]]]:
    found = {}
    for marks, lines in TABLES.findall(PAGE.read_text()):
        for module, name in re.findall(r"fields of ([\w.]+):(\w+)", marks):
            found[getattr(importlib.import_module(module), name)] = rows(lines)
    return found


def test_every_model_has_a_table() -> None:
    assert tables().keys() == set(MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_table_has_the_fields_of_the_model(model: type[BaseModel]) -> None:
    shown, fields = tables()[model], own_fields(model)
    assert shown.keys() == fields.keys()
    for name, field in fields.items():
        kind, _, span, meaning, null = shown[name]
        assert kind == field.type, name
        assert meaning, name
        assert (null.partition(";")[0] == "never") is (not field.may_be_null), name
        assert missing_bounds(field, span) == set(), name
        assert all(f"`{word}`" in span for word in field.words), name


def missing_bounds(field: JsonField, span: str) -> set[float]:
    return field.bounds - {float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", span.replace(",", ""))}


def test_the_codes_of_errors_are_those_of_the_server() -> None:
    page = PAGE.read_text().partition("| status | codes |")[2].partition("\n\n")[0]
    statuses = {status.phrase.lower().replace(" ", "_") for status in HTTPStatus}
    nodes = [node for file in (ROOT / "server").rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    named = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    codes = {code for line in page.splitlines() for code in re.findall(r"`([a-z_]+)`", line)}
    assert len(codes) > 20
    assert codes <= named | statuses
