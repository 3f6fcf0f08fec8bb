"""Statistics that wait in the engine arrive complete, whatever else runs beside their request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from model_impl.engine.member_share import FEW_ROWS
from model_impl.engine.scheduler import AT_ONCE
from model_impl.plugin import SCHEDULER_CLASS
from model_impl.reference.ensemble import ensemble_uncertainty
from model_impl.reference.model import with_weights
from model_impl.wire import report_args
from server.engine.statistics import StatisticsProcessor, scored
from tests.conformance.models import random_prompts, random_weights, variant_config
from tests.support.engines import engine, ensemble_name, generate, member_requests, saved_model, token_params
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import assert_statistics_within, assert_within, ensemble_tolerance

pytestmark = pytest.mark.engine


CONFIG = variant_config("grown jointly, tau kept")
PROMPT, *_ = random_prompts(CONFIG, length=8)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    checkpoint = tmp_path_factory.mktemp("holding") / "checkpoint"
    saved_model(checkpoint, CONFIG, random_weights(CONFIG))
    with engine(checkpoint, scheduler_cls=SCHEDULER_CLASS) as opened:
        yield opened


def params(unshown: bool, **options: Any) -> Any:
    return token_params(extra_args=report_args(unshown=unshown), **options)


def entries(output: Any) -> list[Any]:
    return [scored(position) for position in output.outputs[0].logprobs]


def numbers(entry: Any) -> tuple[float, ...]:
    return entry.entropy, entry.variance, entry.margin


def test_in_batches_or_one_by_one(llm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = (1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 3)
    sent: list[int] = []
    plain = StatisticsProcessor._update_sample_logprobs

    def counted(self: StatisticsProcessor, lists: Any) -> None:
        sent.append(len(lists.logprobs))
        plain(self, lists)

    monkeypatch.setattr(StatisticsProcessor, "_update_sample_logprobs", counted)
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    shown = generate(llm, [PROMPT] * len(lengths), [params(False, max_tokens=length) for length in lengths])
    assert set(sent) == {1}
    sent.clear()
    waiting = [params(True, max_tokens=length) for length in lengths]
    unshown = generate(llm, [PROMPT] * len(lengths), waiting)
    assert sorted(sent) == [1, 1, 3, AT_ONCE - 1, *[AT_ONCE] * 4]
    # Others want alternatives, for some of the steps.
    others = [params(False, max_tokens=5, logprobs=3), params(True, max_tokens=7, logprobs=2)]
    beside = generate(llm, [PROMPT] * (len(lengths) + len(others)), waiting + others)
    assert not scheduler.held
    texts = torch.tensor([[*PROMPT, *max((one.outputs[0].token_ids for one in shown), key=len)]])
    e = logit_tolerance(with_weights(CONFIG, random_weights(CONFIG)), texts).max().item()
    for one, other, third in zip(shown, unshown, beside, strict=False):
        assert one.outputs[0].token_ids == other.outputs[0].token_ids == third.outputs[0].token_ids
        expected = entries(one)
        assert None not in expected
        for found in (entries(other), entries(third)):
            for entry, own in zip(found, expected, strict=True):
                assert entry.epistemic is not None
                assert entry.rank == own.rank
                assert entry.epistemic == pytest.approx(own.epistemic, rel=1e-5, abs=1e-5)
                assert entry.places == pytest.approx(own.places, rel=1e-5, abs=1e-5)
                assert entry.logprob == pytest.approx(own.logprob, abs=2 * e)
            statistics = [torch.tensor([numbers(entry) for entry in part]).double() for part in (found, expected)]
            assert_statistics_within(*statistics, torch.full((len(found),), e).double())
        allowed = 2 * e * len(expected)
        assert one.outputs[0].cumulative_logprob == pytest.approx(other.outputs[0].cumulative_logprob, abs=allowed)


def test_nothing_waits_for_a_request_that_was_aborted(llm: Any) -> None:
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    request_id = llm.llm_engine.add_request("r", {"prompt_token_ids": PROMPT}, params(True, max_tokens=30))
    for _ in range(3):
        llm.llm_engine.step()
    assert [len(held) for held in scheduler.held.values()] == [3]
    llm.llm_engine.abort_request([request_id], internal=True)
    assert not scheduler.held


def scheduled(
    llm: Any, monkeypatch: pytest.MonkeyPatch, requests: Sequence[tuple[str, Any, Any]]
) -> list[dict[str, int]]:
    """The rows of each request, by the beginning of its name, in every step until all requests have ended."""
    scheduler, steps = llm.llm_engine.engine_core.engine_core.scheduler, []
    plain = scheduler.schedule

    def noted(*args: Any) -> Any:
        found = plain(*args)
        steps.append({name.split("-")[0]: rows for name, rows in found.num_scheduled_tokens.items()})
        return found

    monkeypatch.setattr(scheduler, "schedule", noted)
    for request in requests:
        llm.llm_engine.add_request(*request)
    while llm.llm_engine.has_unfinished_requests():
        llm.llm_engine.step()
    return [step for step in steps if step]


def test_members_take_a_bounded_part_of_the_steps_of_others(llm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others overtake members that wait, and the members get the same numbers as alone."""
    answer = PROMPT * 4
    others = [(f"other{i}", {"prompt_token_ids": [i, *PROMPT]}, token_params(max_tokens=20)) for i in range(4)]
    found = []
    for name, beside in (("alone", []), ("beside", others)):
        members = [(f"member{i}", *own) for i, own in enumerate(member_requests(name, 6, PROMPT, answer))]
        steps = scheduled(llm, monkeypatch, [*members, *beside])
        rows = [sum(count for request, count in step.items() if request.startswith("member")) for step in steps]
        assert sum(rows) == 6 * (len(PROMPT) + len(answer) - 1)
        if beside:
            assert all(f"other{i}" in steps[0] for i in range(4))
            while_others_run = [count for step, count in zip(steps, rows, strict=True) if "other0" in step]
            assert max(while_others_run) == FEW_ROWS + 1
            assert len(while_others_run) == 20
        else:
            assert len(steps) == 1
        (mixture,) = llm.collective_rpc("take_mixture", args=(ensemble_name(name),))
        found.append(torch.tensor(mixture))
    ids = torch.tensor([[*PROMPT, *answer]])
    model = with_weights(CONFIG, random_weights(CONFIG))
    e = logit_tolerance(model, ids)[0, len(PROMPT) - 1 : -1]
    for own in found:
        expected = ensemble_uncertainty(model, ids, len(PROMPT), 6)[0]
        assert_within(own, expected, ensemble_tolerance(e, CONFIG.vocab_size))
