"""The reference model equals the official implementation."""

import pytest
import torch

from model_impl.config import TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer
from tests.support.golden_cases import CASES, GROWN_CASES, PROMPT_TOKENS, TOLERANCE, GoldenCase, load_case


def reference(case: GoldenCase, config: TokenformerConfig | None = None) -> ReferenceTokenformer:
    model = ReferenceTokenformer(config or case.config)
    model.load_state_dict(case.weights)
    return model.eval()


def test_the_cases_are_there() -> None:
    assert len(CASES) == 8
    assert len(GROWN_CASES) == 3


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits_and_layer_outputs(name: str) -> None:
    case = load_case(name)
    model = reference(case)
    logits = model(case.io["input_ids"])
    torch.testing.assert_close(logits, case.io["logits"][..., : case.config.vocab_size], atol=TOLERANCE, rtol=0)
    layers = torch.stack(model.hidden_states(case.io["input_ids"]))
    torch.testing.assert_close(layers, case.io["layer_outputs"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_greedy_ids_are_the_golden_ones(name: str) -> None:
    case = load_case(name)
    model, expected = reference(case), case.io["greedy_ids"]
    ids = expected[:, :PROMPT_TOKENS]
    for step in range(expected.shape[1] - PROMPT_TOKENS):
        logits = model(ids)[:, -1]
        golden = case.io["greedy_step_logits"][:, step, : case.config.vocab_size]
        torch.testing.assert_close(logits, golden, atol=TOLERANCE, rtol=0)
        ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), dim=1)
    assert ids.tolist() == expected.tolist()


@pytest.mark.parametrize("name", GROWN_CASES)
@torch.no_grad()
def test_an_earlier_stage_of_grown_weights_is_the_ungrown_model(name: str) -> None:
    case = load_case(name)
    model = reference(case, case.staged_config())
    vocabulary = slice(case.config.vocab_size)
    before, after = (model(case.io["input_ids"], stage) for stage in (0, 1))
    torch.testing.assert_close(before, case.io["ungrown_logits"][..., vocabulary], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(after, case.io["logits"][..., vocabulary], atol=TOLERANCE, rtol=0)
    assert not torch.allclose(before, after, atol=1e-2)
