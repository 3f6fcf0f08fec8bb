"""Muon with AdamW is each of them on its own parameters, under one schedule, and can be resumed."""

import copy
from pathlib import Path

import pytest
import torch

from model_impl.huggingface import TokenformerForCausalLM
from model_impl.training.optimizer import ADAMW_SHARE, MuonWithAdamW
from tests.support.grown import grown_checkpoint


@pytest.fixture
def model(tmp_path: Path) -> TokenformerForCausalLM:
    grown_checkpoint(tmp_path / "checkpoint", stages=2)
    return TokenformerForCausalLM.from_pretrained(tmp_path / "checkpoint").train()


def backward(model: TokenformerForCausalLM, seed: int) -> None:
    ids = torch.randint(99, (2, 12), generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model(ids, labels=ids).loss.backward()


def assert_same(one: TokenformerForCausalLM, other: TokenformerForCausalLM) -> None:
    assert all(p.equal(q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def test_it_steps_as_the_two_would(model: TokenformerForCausalLM) -> None:
    other = copy.deepcopy(model)
    both = MuonWithAdamW(model, 0.02, 0.1)
    named = list(other.named_parameters())
    matrices = [p for name, p in named if "param_tokens" in name]
    rest = [p for name, p in named if "param_tokens" not in name]
    muon = torch.optim.Muon(matrices, 0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, 0.02 * ADAMW_SHARE, betas=(0.9, 0.95), weight_decay=0.1)
    for seed in range(3):
        backward(model, seed)
        both.step()
        backward(other, seed)
        muon.step()
        adamw.step()
    assert_same(model, other)


def test_a_schedule_moves_both_rates_and_a_saved_state_goes_on(model: TokenformerForCausalLM) -> None:
    optimizer = MuonWithAdamW(model, 0.02, 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    backward(model, 0)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [0.01, 0.01 * ADAMW_SHARE]
    other = copy.deepcopy(model)
    resumed = MuonWithAdamW(other, 0.02, 0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, own in ((model, optimizer), (other, resumed)):
        backward(each, 1)
        own.step()
    assert_same(model, other)
    for group in resumed.param_groups:
        group["lr"] = 0.0
    assert all(group["lr"] == 0.0 for part in resumed.parts for group in part.param_groups)


def test_only_what_is_trained_is_stepped(model: TokenformerForCausalLM) -> None:
    model.freeze_before("grown-1")
    optimizer = MuonWithAdamW(model, 0.02, 0.1)
    assert len(optimizer.parts) == 1
    shapes = [len(parameter) for parameter in optimizer.param_groups[0]["params"]]
    stage = model.config.stages[-1].tokens
    assert sum(shapes) == 2 * model.config.num_hidden_layers * sum(stage.values())
