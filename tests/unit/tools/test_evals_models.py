"""The evaluation's models: rare people, the twin and its dropout, exact fast answers, and attribution to stages."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from evals.answers import Draft, answers, greedy, padded, sampler
from evals.members import Dropped, disagreement, dropout_members, token_members
from evals.rare import EXPOSURES, RareWorld
from evals.twin import Mlp, Twin, TwinRun
from evals.world.corpus import epoch_chats, epoch_documents
from evals.world.people import World
from evals.world.tokenizer import special_id, train_tokenizer
from evals.world.training import Recipe, Run, world_texts
from model_impl.config import GrowthStage
from model_impl.reference.ensemble import ensemble_uncertainty
from model_impl.reference.model import ReferenceTokenformer
from tests.support.tiny import TOKENS, tiny_config, tiny_weights

RARE = RareWorld(known=20, unknown=4, rare=10, epochs=20)
END = 3


def tiny(**changes: object) -> ReferenceTokenformer:
    config = tiny_config(**changes)
    model = ReferenceTokenformer(config)
    model.load_state_dict(tiny_weights(config))
    return model.eval().requires_grad_(False)


def tiny_twin() -> Twin:
    torch.manual_seed(0)
    twin = Twin(tiny_config())
    for parameter in twin.parameters():
        torch.nn.init.normal_(parameter)
    return twin.eval().requires_grad_(False)


def test_texts_mention_rare_people_in_exactly_their_epochs() -> None:
    names = {person.name: RARE.exposure(person) for person in RARE.people}
    assert sorted(names.values()) == sorted([*(n for n in EXPOSURES for _ in range(2)), *[20] * 10, *[0] * 4])
    seen: Counter[str] = Counter()
    for epoch in range(20):
        documents = " ".join(epoch_documents(RARE, epoch))
        asked = " ".join(text for chat in epoch_chats(RARE, epoch) for turn in chat.turns for text in turn)
        mentioned = {name for name in names if f"{name} " in documents}
        assert {name for name in names if f"{name} " in asked} <= mentioned
        seen.update(mentioned)
    assert seen == {name: count for name, count in names.items() if count}


def test_without_rare_people_a_world_has_the_texts_of_the_plain_one() -> None:
    plain, rare = World(known=8, unknown=2), RareWorld(known=8, unknown=2, rare=0, epochs=3)
    assert epoch_documents(plain, 1) == epoch_documents(rare, 1)
    assert epoch_chats(plain, 1) == epoch_chats(rare, 1)


def test_the_twin_has_the_parameter_count_of_the_tokenformer_and_its_embedding_and_norms() -> None:
    config = tiny_config(growth_stages=[GrowthStage("base", TOKENS | {"ffn": 31}).to_dict()])
    tokenformer, twin = ReferenceTokenformer(config), Twin(config)
    counts = [sum(p.numel() for p in model.parameters()) for model in (tokenformer, twin)]
    width = config.hidden_size
    assert 0 <= counts[0] - counts[1] < 2 * width * config.num_hidden_layers  # a hidden unit is two rows
    assert twin.embedding().weight.shape == tokenformer.embedding().weight.shape
    assert twin(torch.tensor([[1, 2, 3]])).shape == (1, 3, config.vocab_size)


def test_a_twin_trains_as_the_demo_does(tmp_path: Path) -> None:
    world = World(known=4, unknown=0)
    tokenizer = train_tokenizer(world_texts(world))
    sizes = {"hidden_size": 32, "layers": 1, "heads": 1, "attention_tokens": 32, "ffn_tokens": 64}
    recipe = Recipe(epochs=4, short_epochs=4, warmup=0.1, dtype="float32", **sizes)
    twin = TwinRun(world, tokenizer, recipe, tmp_path / "twin.pt")
    base = Run(world, tokenizer, recipe, tmp_path / "base.pt")
    counts = [sum(p.numel() for p in run.model.parameters()) for run in (twin, base)]
    assert counts[0] == counts[1]
    # Muon has query, key, value, output and the MLP's two; AdamW the embedding and the final norm.
    assert [len(optimizer.param_groups[0]["params"]) for optimizer, _ in twin.optimizers] == [6, 3]
    twin.train(lambda progress: None)
    assert twin.progress.losses[-1] < twin.progress.losses[0] - 0.05
    with pytest.raises(ValueError, match="other settings"):
        TwinRun(world, tokenizer, replace(recipe, epochs=5), tmp_path / "twin.pt")


def test_dropping_hidden_units_is_a_model_without_them() -> None:
    twin, ids = tiny_twin(), torch.tensor([[1, 2, 3, 4]])
    whole = twin(ids)
    with dropout_members(twin, 0.4, "hidden")(1, torch.ones_like(ids, dtype=torch.bool)):
        dropped = twin(ids)
        kept = {name: m.keep[0, 0] for name, m in twin.named_modules() if isinstance(m, Mlp) and m.keep is not None}
    assert torch.equal(twin(ids), whole)
    assert kept and all(0 < keep.sum() < len(keep) for keep in kept.values())
    smaller = tiny_twin()
    for name, module in smaller.named_modules():
        if isinstance(module, Mlp):
            module.values.data *= kept[name][:, None]
    torch.testing.assert_close(dropped, smaller(ids))


def test_dropping_inputs_changes_the_model_only_within_the_block() -> None:
    twin, ids = tiny_twin(), torch.tensor([[1, 2, 3, 4]])
    whole = twin(ids)
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    with dropout_members(twin, 0.3, "inputs")(0, everywhere):
        inside = twin(ids)
    assert not torch.allclose(inside, whole) and torch.equal(twin(ids), whole)
    with dropout_members(twin, 1e-9, "inputs")(0, everywhere):
        torch.testing.assert_close(twin(ids), whole)


@pytest.mark.parametrize("dropped", ["hidden", "inputs"])
def test_a_twins_members_differ_from_the_answer_on(dropped: Dropped) -> None:
    twin, ids = tiny_twin(), torch.tensor([[1, 2, 3, 4]])
    whole = twin(ids)
    with dropout_members(twin, 0.3, dropped)(0, torch.tensor([[False, False, True, True]])):
        member = twin(ids)
    torch.testing.assert_close(member[:, :2], whole[:, :2])
    assert ((member - whole)[:, 2:].abs().amax(dim=-1) > 1e-4).all()


def test_disagreement_is_the_ensembles_at_the_positions_asked_for() -> None:
    model, ids = tiny(), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    starts, rows, columns = torch.tensor([1, 0]), torch.tensor([0, 1, 1]), torch.tensor([2, 0, 2])
    members = token_members(model, model.config.ensemble_rate)
    found = disagreement(model, members, (2, 5), ids, starts, rows, columns)
    for place, count in enumerate((2, 5)):
        expected = [ensemble_uncertainty(model, ids[i : i + 1], int(starts[i]) + 1, count)[0] for i in rows]
        own = torch.stack([each[c - starts[i]] for each, i, c in zip(expected, rows, columns, strict=True)])
        torch.testing.assert_close(found[place], own, atol=1e-5, rtol=1e-4)


def generate(model: ReferenceTokenformer, prompt: tuple[int, ...], limit: int) -> tuple[int, ...]:
    ids = list(prompt)
    while len(ids) < len(prompt) + limit and (len(ids) == len(prompt) or ids[-1] != END):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


def test_greedy_answers_are_those_of_plain_generation_whatever_the_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evals.answers.LIMIT", 8)
    model = tiny()
    prompts = [(1,), (2, 5), (9, 8, 7), (4, 4)]
    expected = [generate(model, prompt, 8) for prompt in prompts]
    guesses = [expected[0], (*expected[1][:2], 10, END), (6, 6, END), (END,)]
    drafts = [Draft(prompt, guess) for prompt, guess in zip(prompts, guesses, strict=True)]
    found = answers(model, drafts, END, greedy)
    assert [one[0].tokens for one in found] == expected
    for [one], prompt in zip(found, prompts, strict=True):
        logits = model(torch.tensor([[*prompt, *one.tokens]]))[0, len(prompt) - 1 : -1]
        chosen = logits.gather(-1, torch.tensor(one.tokens)[:, None])
        assert one.mean_logit == pytest.approx(float(chosen.mean()), abs=1e-4)


def test_sampled_answers_have_the_models_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evals.answers.LIMIT", 2)
    model, count = tiny(), 20_000
    for parameter in model.parameters():
        parameter.mul_(0.5)
    choose = sampler(torch.Generator().manual_seed(0))
    [found] = answers(model, [Draft((1, 2), (5, END))], END, choose, count)
    assert sum(one.count for one in found) == count
    first = model(torch.tensor([[1, 2]]))[0, -1].softmax(dim=-1)
    second = model(torch.tensor([[1, 2, token] for token in range(11)]))[:, -1].softmax(dim=-1)
    shares = {one.tokens: one.count / count for one in found}
    assert shares.get((END,), 0.0) == pytest.approx(float(first[END]), abs=0.015)
    for a, b in product((token for token in range(11) if token != END), range(11)):
        assert shares.get((a, b), 0.0) == pytest.approx(float(first[a] * second[a, b]), abs=0.015)


def grown() -> ReferenceTokenformer:
    stages = [GrowthStage("base", TOKENS), GrowthStage("new", dict.fromkeys(TOKENS, 3), norm_group=1)]
    return tiny(growth_stages=[stage.to_dict() for stage in stages])


def test_rows_are_padded_behind_the_text() -> None:
    assert padded([[1, 2], [3]]).tolist() == [[1, 2], [3, 0]]
    assert special_id("<|end|>") == 1
