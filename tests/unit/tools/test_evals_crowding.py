"""The study of crowding: its facts, and the growth that it compares with."""

import torch

from evals.crowding import NAMES, REPEATS, Facts, grown, loaded, measures, shape
from model_impl.reference.model import ReferenceTokenformer


def test_names_are_unique_and_common_facts_come_four_times_an_epoch() -> None:
    facts = Facts.random(40, seed=0)
    assert len({tuple(name) for name in facts.ids[:, :2].tolist()}) == 40
    assert int(facts.ids[:, 2].min()) >= NAMES
    epoch = facts.epoch(torch.Generator().manual_seed(0))
    counts = [(epoch == fact).all(dim=-1).sum().item() for fact in facts.ids]
    assert counts == [REPEATS] * 20 + [1] * 20


def test_accuracy_is_the_share_of_values_that_are_likeliest() -> None:
    config = shape(16)
    model = loaded(config, ReferenceTokenformer(config).state_dict())
    facts = Facts.random(40, seed=0)
    facts.ids[:20, 2] = model(facts.ids[:20, :2]).logits[:, -1].argmax(-1)
    facts.ids[20:, 2] = model(facts.ids[20:, :2]).logits[:, -1].argmin(-1)
    assert facts.accuracy(model) == (1.0, 0.0)


def test_a_grown_model_begins_where_the_base_was() -> None:
    config, facts = shape(16), Facts.random(40, seed=0)
    weights = ReferenceTokenformer(config).state_dict()
    logits = [model(facts.ids).logits for model in (loaded(config, weights), grown(config, weights))]
    torch.testing.assert_close(*logits)
    assert len(measures(config, weights, facts)) == 5
