"""The worker of `loadtest.api_layer` invents tokens, which a server must take for a model's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.no_model import NoModel
from model_impl.wire import report_args
from server.engine.statistics import scored, split_columns
from tests.unit.server.engine.test_statistics_processor import processor

REPORTED = 4
ASKED: dict[str, Any] = report_args()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> NoModel:
    monkeypatch.setattr("loadtest.no_model.STEP_SECONDS", 0.0)
    made = NoModel.__new__(NoModel)
    made.reported, made.prompts, made.params, made.next_step = REPORTED, {}, {}, 0.0
    return made


def new(name: str, prompt: int, logprobs: int | None, **arguments: Any) -> Any:
    params = SimpleNamespace(num_logprobs=logprobs, extra_args=arguments)
    return SimpleNamespace(req_id=name, prompt_token_ids=[5] * prompt, sampling_params=params, num_computed_tokens=0)


def step(worker: NoModel, scheduled: dict[str, int], *fresh: Any, **running: int) -> Any:
    """`running`: what each older request has computed before this step."""
    cached = SimpleNamespace(req_ids=list(running), num_computed_tokens=list(running.values()))
    output: Any = SimpleNamespace(
        finished_req_ids=set(),
        scheduled_new_reqs=list(fresh),
        scheduled_cached_reqs=cached,
        num_scheduled_tokens=scheduled,
    )
    return worker.execute_model(output)


def test_a_token_for_every_request_whose_prompt_is_complete(worker: NoModel) -> None:
    first = step(worker, {"a": 3, "b": 2}, new("a", 3, None), new("b", 4, None))
    assert first.req_ids == ["a", "b"]
    assert [len(tokens) for tokens in first.sampled_token_ids] == [1, 0]
    assert first.logprobs is None
    second = step(worker, {"a": 1, "b": 2}, a=3, b=2)
    assert [len(tokens) for tokens in second.sampled_token_ids] == [1, 1]
    assert second.sampled_token_ids[0] != first.sampled_token_ids[0]


@pytest.mark.parametrize(
    ("logprobs", "arguments", "width"),
    [
        (0, ASKED, 3 + REPORTED),
        (2, ASKED, 3 + REPORTED),
        (2, {}, 0),
    ],
)
def test_the_columns_are_those_that_our_worker_would_report(
    worker: NoModel, logprobs: int, arguments: dict[str, Any], width: int
) -> None:
    made = step(worker, {"a": 3}, new("a", 3, logprobs, **arguments))
    plain, columns = split_columns(made.logprobs)
    assert plain.logprobs.shape == (1, logprobs + 1)
    assert (len(columns[0]) if columns else 0) == width
    reader = processor(unshown=False, logprobs=logprobs)
    reader._update_sample_logprobs(made.logprobs)
    assert reader.logprobs is not None
    assert (scored(reader.logprobs[0]) is not None) == bool(width)
