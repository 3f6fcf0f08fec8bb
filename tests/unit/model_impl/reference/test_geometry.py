"""The geometry of parameter tokens: known arrangements have known measures, and `inspect` reports them."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_impl.reference.geometry import directions, measured_use, novelty, random_directions, rows
from model_impl.reference.geometry_report import plot, table
from model_impl.reference.model import load_reference
from server.__main__ import main
from tests.support.grown import ADDED, grown_checkpoint, word_tokenizer


@given(count=st.integers(2, 40), width=st.integers(2, 24), seed=st.integers(0, 100))
def test_measures_are_those_of_their_definitions(count: int, width: int, seed: int) -> None:
    tokens = torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).double()
    found = directions(tokens)
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    cosines = (unit @ unit.T)[~torch.eye(count, dtype=torch.bool)]
    assert found.coherence == pytest.approx(width * cosines.square().mean().item())
    shares = torch.linalg.svdvals(tokens)
    shares = shares / shares.sum()
    assert found.effective_rank == pytest.approx(math.exp(-(shares * shares.log()).sum().item()))
    assert found.effective_rank <= min(count, width) + 1e-9
    assert found.tokens == count


def test_orthogonal_tokens_do_not_interfere_and_parallel_ones_do_most() -> None:
    orthogonal = directions(torch.eye(8))
    assert (orthogonal.coherence, orthogonal.effective_rank) == pytest.approx((0, 8))
    parallel = directions(torch.ones(5, 8))
    assert (parallel.coherence, parallel.effective_rank) == pytest.approx((8, 1))
    assert (orthogonal.duplicates, parallel.duplicates) == (0, 5)


def test_random_tokens_have_a_coherence_of_one() -> None:
    found = random_directions(2000, 64)
    assert found.coherence == pytest.approx(1, abs=0.02)
    assert found.high_cosine == pytest.approx(2.576 / 8, abs=0.02)  # nearly normal with variance 1/d


def test_a_dead_token_is_counted_and_left_out_of_the_cosines() -> None:
    tokens = torch.eye(6)
    tokens[0] *= 1e-6
    found = directions(tokens)
    assert found.dead == 1
    assert found.coherence == pytest.approx(0)
    assert directions(torch.zeros(4, 6)).dead == 4


def test_novelty_tells_what_earlier_tokens_did_not_span() -> None:
    earlier = torch.eye(6)[:2]
    new = torch.tensor([[1.0, 0, 1, 0, 0, 0]])
    assert novelty(new, earlier) == pytest.approx((0.5, math.sqrt(0.5)))
    assert novelty(torch.eye(6)[3:], earlier) == pytest.approx((1, 0))
    assert novelty(new, torch.eye(6)).outside == pytest.approx(0)


def test_tokens_of_zeros_are_not_new() -> None:
    assert novelty(torch.zeros(3, 6), torch.eye(6)[:2]) == (0, 0)


def test_the_quantile_is_of_a_sample_where_there_are_many_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_impl.reference.geometry.CHUNK", 1)
    found = random_directions(4200, 2)  # 4200^2 cosines are more than torch.quantile takes
    assert found.high_cosine == pytest.approx(math.cos(0.01 * math.pi / 2), abs=1e-4)


def test_participation_is_the_number_of_tokens_that_work_equally(tmp_path: Path) -> None:
    grown_checkpoint(tmp_path / "checkpoint", stages=1)
    model = load_reference(tmp_path / "checkpoint")
    layer = model.get_submodule("sequential.2.mlp")
    layer.get_parameter("value_param_tokens")[3:] = 0
    uses = measured_use(model, [torch.arange(9)[None], torch.arange(20)[None]])
    assert len(uses) == 10
    assert 1 <= uses[layer].participation <= 3  # type: ignore[index]
    assert uses[layer].silent == 44  # type: ignore[index]


def test_every_pattention_has_a_row_and_the_grown_ones_novelty(tmp_path: Path) -> None:
    grown_checkpoint(tmp_path / "checkpoint", stages=3)
    found = list(rows(load_reference(tmp_path / "checkpoint"), [torch.arange(9)[None]]))
    assert [(row.layer, row.projection) for row in found] == [
        (layer, projection) for layer in range(2) for projection in ADDED[1]
    ]
    assert {row.projection for row in found if not row.novelty} == {"key"}  # the last stage has none there
    assert len(table(found).splitlines()) == 11
    assert plot(found) == plot(found)


def test_inspect_prints_geometry_and_writes_the_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, data, svg = tmp_path / "checkpoint", tmp_path / "texts.jsonl", tmp_path / "plot.svg"
    grown_checkpoint(checkpoint, stages=2, files=word_tokenizer())
    data.write_text('{"text": "w1 w2 w3"}\n{"text": "w4"}\n')
    command = ["inspect", str(checkpoint), "--geometry", "--data", str(data), "--plot", str(svg)]
    assert main(command) == 0
    assert "at work" in capsys.readouterr().out
    assert svg.read_text().startswith("<?xml")
    assert main([*command, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["geometry"]
    assert len(entries) == 10
    assert entries[0]["keys"]["tokens"] == 32
    assert entries[0]["use"]["participation"] >= 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "texts.jsonl"], "--data and --plot: only together with --geometry"),
        (["--geometry", "--data", "nothing.jsonl"], "nothing.jsonl: No such file or directory"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    grown_checkpoint(tmp_path / "checkpoint", stages=1)
    assert main(["inspect", str(tmp_path / "checkpoint"), *flags]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {message}\n"
