"""How many rows of a step the members of ensembles get."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from model_impl.engine.member_share import ALONE, FEW_ROWS, OTHERS_PER_ROW, SharingScheduler
from model_impl.wire import MEMBER_ARG


def request(*, member: bool, tokens: int = 100) -> Any:
    params = SimpleNamespace(extra_args={MEMBER_ARG: {}} if member else None)
    return SimpleNamespace(sampling_params=params, num_tokens=tokens)


def scheduler(monkeypatch: pytest.MonkeyPatch, *, others: int, step_tokens: int = 2048) -> SharingScheduler:
    monkeypatch.setattr(Scheduler, "_reserve_prefill_lookahead", lambda self, request, computed, rows: rows)
    made = SharingScheduler.__new__(SharingScheduler)
    made.limited_step, made.member_rows, made.current_step = -1, 0, 0
    made.requests = {str(i): request(member=False) for i in range(others)} | {"member": request(member=True)}
    made.max_num_scheduled_tokens = step_tokens
    return made


@pytest.mark.parametrize("others", [1, 3, 4, 40])
def test_beside_others_members_share_a_few_rows(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    own = scheduler(monkeypatch, others=others)
    limit = FEW_ROWS + others // OTHERS_PER_ROW
    got = [own._reserve_prefill_lookahead(request(member=True), 0, 3) for _ in range(limit)]
    assert sum(got) == limit and got[0] == 3
    assert own._reserve_prefill_lookahead(request(member=False), 0, 50) == 50
    own.current_step = 1
    assert own._reserve_prefill_lookahead(request(member=True), 0, 3) == 3


@pytest.mark.parametrize(("tokens", "rows"), [(2048, 2048 // ALONE), (8, 1)])
def test_alone_members_get_a_part_of_the_step_but_one_row_at_least(
    tokens: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = scheduler(monkeypatch, others=0, step_tokens=tokens)
    assert own._reserve_prefill_lookahead(request(member=True, tokens=5000), 0, tokens) == rows


def test_rows_that_speculation_needs_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM pads the last token of a prompt by its drafts, and asserts that all of these rows are scheduled."""
    own = scheduler(monkeypatch, others=1)
    assert own._reserve_prefill_lookahead(request(member=True, tokens=33), 32, FEW_ROWS + 1) == FEW_ROWS + 1
    assert own._rows_left() == 0
