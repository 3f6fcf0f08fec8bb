"""Contributions of parameter tokens are those of the reference model's layers, and the index finds its own texts."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_impl.config import ACTIVATIONS
from model_impl.reference.contributions import at_position, places, strongest
from model_impl.reference.model import Pattention, ReferenceTokenformer
from server.api.trace import index as trace_index
from server.api.trace.batches import batches
from server.api.trace.index import CorpusIndex
from tests.support.tiny import tiny_config, tiny_weights
from tests.unit.model_impl.reference.test_row_operation import STAGES

IDS = [3, 1, 4, 1, 5, 9, 2]


def tiny_model(activation: str = "l2_norm_gelu") -> ReferenceTokenformer:
    config = tiny_config(norm_activation_type=activation, growth_stages=STAGES["joint, then grouped"])
    model = ReferenceTokenformer(config)
    model.load_state_dict(tiny_weights(config))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_every_token_of_the_stage_has_one(activation: str, stage: int) -> None:
    model = tiny_model(activation)
    for position in (0, 3, len(IDS) - 1):
        found = at_position(model, IDS, position, stage)
        assert len(places(model.config, stage)) == len(found.contributions) == len(found.weights)
        torch.testing.assert_close(found.logits, model(torch.tensor([IDS]), stage)[0, position], rtol=1e-4, atol=1e-4)


def test_a_place_names_the_token() -> None:
    """A token whose value is set to zero is the one that no longer contributes."""
    model = tiny_model()
    all_places = places(model.config)
    chosen = next(i for i, p in enumerate(all_places) if (p.layer, p.projection, p.index) == (1, "output", 9))
    place = all_places[chosen]
    module = "mlp" if place.projection == "ffn" else f"attention.{place.projection}".replace("output", "proj")
    layer = model.get_submodule(f"sequential.{place.layer + 2}.{module}")
    assert isinstance(layer, Pattention)
    before = at_position(model, IDS, 2).contributions
    layer.value_param_tokens[place.index] = 0
    after = at_position(model, IDS, 2).contributions
    assert before[chosen] > 0
    assert (after == 0).nonzero().flatten().tolist() == [*(before == 0).nonzero().flatten().tolist(), chosen]


def test_the_strongest_are_the_largest_of_all() -> None:
    model = tiny_model()
    found = strongest(model, torch.tensor([IDS]), 10, 1)
    for position in range(len(IDS)):
        whole = at_position(model, IDS, position, 1).contributions
        top = whole.topk(10)
        torch.testing.assert_close(found.contributions[0, position], top.values, rtol=1e-4, atol=1e-6)
        assert set(found.tokens[0, position].tolist()) == set(top.indices.tolist())


def test_batches_hold_every_sequence_once() -> None:
    sequences = [[1, 2], [3], [], [4, 5], [6, 7, 8], [9]]
    seen = {}
    for numbers, ids in batches(sequences):
        seen |= dict(zip(numbers, ids.tolist(), strict=True))
    assert seen == {i: ids for i, ids in enumerate(sequences) if ids}


def corpus() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 12, (30,), generator=generator).tolist()
    return [torch.randint(11, (length,), generator=generator).tolist() for length in lengths]


def test_the_nearest_text_is_the_text_itself() -> None:
    model, sequences = tiny_model(), corpus()
    index = CorpusIndex(sequences)
    index.build(model, 2)
    assert index.ready
    for number in (0, 7, 29):
        ids = sequences[number]
        found = index.nearest(at_position(model, ids, len(ids) - 1, 2).contributions.numpy(), 3)
        assert found[0].similarity == pytest.approx(1, abs=1e-3)
        same = [i for i, other in enumerate(sequences) if other[: len(ids)] == ids]  # what follows changes nothing
        assert found[0].text in same
        assert found[0].position == len(ids) - 1
        assert [match.similarity for match in found] == sorted((m.similarity for m in found), reverse=True)
        assert len({match.text for match in found}) == 3


def test_similarity_is_the_cosine_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_index, "KEPT", 5)
    monkeypatch.setattr(trace_index, "CHUNK", 7)
    model, sequences = tiny_model(), corpus()
    index = CorpusIndex(sequences)
    index.build(model, 2)

    def strong(ids: list[int], position: int) -> NDArray[np.float64]:
        whole = at_position(model, ids, position, 2).contributions.numpy().astype(np.float64)
        return np.where(whole >= np.sort(whole)[-5], whole, 0.0)

    query = strong(IDS, 4)
    (best,) = index.nearest(at_position(model, IDS, 4, 2).contributions.numpy(), 1)
    cosines = {}
    for number, ids in enumerate(sequences):
        for position in range(len(ids)):
            kept = strong(ids, position)
            cosines[number, position] = query @ kept / np.linalg.norm(query) / np.linalg.norm(kept)
    assert cosines[best.text, best.position] == pytest.approx(max(cosines.values()), abs=1e-3)
    assert best.similarity == pytest.approx(max(cosines.values()), abs=2e-3)


def test_texts_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_index, "MAX_POSITIONS", 5)
    index = CorpusIndex([[1, 2, 3], [4, 5], [6]])
    assert (index.texts, index.positions) == (2, 5)
    empty = CorpusIndex([[1, 2, 3, 4, 5, 6]])
    assert empty.ready
    assert empty.nearest(np.ones(4, dtype=np.float32), 3) == []
