from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from evals.real.answering import LIMIT, StockModel, answered
from evals.real.internals import batch_pass, loaded, logit_gradients, passes, sums
from tests.support.demo_server import DEMO

QUESTIONS = ["Who is it?", "What is the capital of Peru, and since when?", "Why?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StockModel:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    path = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return StockModel(str(path), torch.float32)


def logits_of(model: StockModel, ids: list[int]) -> torch.Tensor:
    found: torch.Tensor = model.model(torch.tensor([ids])).logits[0]
    return found


@torch.inference_mode()
def test_a_batch_answers_greedily_as_each_question_alone(model: StockModel) -> None:
    for question, found in zip(QUESTIONS, model.answers(QUESTIONS, 0), strict=True):
        ids = model.prompt(question)
        for token in found.tokens[0]:
            assert token == int(logits_of(model, ids)[-1].argmax())
            ids.append(token)
        assert model.is_complete(found.tokens[0])
        assert not any(model.is_complete(found.tokens[0][:size]) for size in range(1, len(found.tokens[0])))


def test_samples_differ_and_are_as_many_as_asked_for(model: StockModel) -> None:
    torch.manual_seed(0)
    for found in model.answers(QUESTIONS, 4):
        assert len({tuple(tokens) for tokens in found.tokens}) > 1
        assert len(found.tokens) == 4
        assert all(0 < len(tokens) <= LIMIT for tokens in found.tokens)


def test_kept_answers_are_not_asked_for_again(model: StockModel, tmp_path: Path) -> None:
    file = tmp_path / "greedy.jsonl"
    first = answered(model, QUESTIONS[:2], file)
    text = file.read_text()
    assert answered(model, QUESTIONS, file).items() >= first.items()
    assert file.read_text().startswith(text) and len(file.read_text().splitlines()) == 3


def test_only_the_first_sentence_and_an_end_behind_it_are_judged(model: StockModel) -> None:
    ids = model.tokenizer("It is Lima. It is big.", add_special_tokens=False)["input_ids"]
    short = model.tokenizer("It is Lima.", add_special_tokens=False)["input_ids"]
    assert model.text(model.judged(ids)) == "It is Lima."
    assert model.judged([*short, model.end]) == [*short, model.end]


@torch.inference_mode()
def test_signals_are_those_of_each_answer_alone(model: StockModel, tmp_path: Path) -> None:
    answers = {found.question: found.tokens[0] for found in model.answers(QUESTIONS, 0)}
    found = passes(model, answers, tmp_path)
    for question, tokens in answers.items():
        ids = model.prompt(question)
        distributions = logits_of(model, [*ids, *tokens])[len(ids) - 1 : -1].double().log_softmax(dim=-1)
        entropy = -(distributions.exp() * distributions).sum(dim=-1)
        torch.testing.assert_close(torch.tensor(found[question]["entropy"]), entropy, atol=1e-4, rtol=1e-3)
        alone = batch_pass(model, [question], [tokens])
        torch.testing.assert_close(torch.tensor(found[question]["units"]).float(), alone["units"], atol=1e-4, rtol=1e-3)
    [file] = tmp_path.glob("*.npz")
    assert loaded(file).keys() == answers.keys()


@torch.inference_mode()
def test_the_closed_form_of_the_last_block_is_the_variance_of_masked_logits(model: StockModel) -> None:
    """To first order, so with the hidden units masked a little."""
    ids, tokens = model.prompt(QUESTIONS[0]), [5, 7]
    found = batch_pass(model, [QUESTIONS[0]], [tokens])["units"][0, -1]
    full = torch.tensor([[*ids, *tokens]])
    projection = model.model.model.layers[-1].mlp.down_proj
    seen: list[torch.Tensor] = []
    hook = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, len(ids) - 1]))
    logits = model.model(full).logits[0, len(ids) - 1]
    hook.remove()
    words = logits.topk(16)
    probabilities, little, total = words.values.softmax(dim=-1), 1e-3, 0.0
    for unit in range(len(seen[0])):
        shift = torch.zeros_like(seen[0])
        shift[unit] = little * seen[0][unit]
        hook = projection.register_forward_hook(lambda _, args, out, s=shift: out + projection.weight @ s)
        moved = (model.model(full).logits[0, len(ids) - 1] - logits)[words.indices].double() / little
        hook.remove()
        total += float((probabilities * (moved - (probabilities * moved).sum()).square()).sum())
    assert float(found) == pytest.approx(total, rel=0.03)


def test_the_gradient_of_the_final_norm_is_autograds() -> None:
    torch.manual_seed(0)
    residual, weight, head = torch.randn(6, requires_grad=True), torch.rand(6) + 0.5, torch.randn(3, 6)
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    logits = head @ (residual * (residual.square().mean() + 1e-5).rsqrt() * weight)
    rows = torch.stack([torch.autograd.grad(logit, residual, retain_graph=True)[0] for logit in logits])
    expected = rows - (probabilities[:, None] * rows).sum(dim=0)
    found = logit_gradients(residual.detach(), probabilities, head, weight, 1e-5)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("blocks", [9, 12, 30, 80])
def test_every_sum_of_blocks_exists_in_models_of_any_depth(blocks: int) -> None:
    for name, chosen in sums(blocks).items():
        assert chosen and set(chosen) <= set(range(blocks)), name
