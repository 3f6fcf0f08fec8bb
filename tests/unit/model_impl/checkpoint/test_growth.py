"""Growing a checkpoint: preserved functions, refusals, and the state after a kill."""

import itertools
import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from model_impl.checkpoint.grow import (
    INITS,
    NORMS,
    default_init,
    grow,
    grown_tensors,
    new_stage,
    parse_tokens,
    preserves_function,
    token_tensor,
)
from model_impl.checkpoint.reading import iterate_tensors, load_config
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import ACTIVATIONS, PROJECTIONS, ConfigError, GrowthStage, TokenformerConfig, norm_groups
from model_impl.reference.model import ReferenceTokenformer
from tests.support.golden_cases import CASES, GROWN_CASES, TOLERANCE, load_case
from tests.support.killing import assert_survives_kills
from tests.support.tiny import TOKENS, tiny_config, tiny_weights

FLOAT32_CHANGE = 1e-5
"""The tolerance for rounding of float32 logits of size 1, at every position."""

WAYS = list(itertools.product(NORMS, INITS, ACTIVATIONS))
IMPOSSIBLE = [("grouped", "zero-keys", "l2_norm_gelu"), ("grouped", "zero-keys", "gelu_l2_norm")]
Weights = dict[str, torch.Tensor]


def reference(config: TokenformerConfig, weights: Weights, dtype: torch.dtype = torch.float32) -> ReferenceTokenformer:
    model = ReferenceTokenformer(config).to(dtype)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def loaded(path: Path) -> ReferenceTokenformer:
    return reference(load_config(path), dict(iterate_tensors(path)))


def some_ids(config: TokenformerConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(config.vocab_size, (2, config.max_position_embeddings), generator=generator)


def calm_weights(config: TokenformerConfig, seed: int) -> Weights:
    """Random weights with logits of about size 1, the size for which `FLOAT32_CHANGE` is meant."""
    weights = tiny_weights(config, seed)
    for name, tensor in weights.items():
        if name.endswith("norm.weight"):
            tensor.mul_(0.3).add_(1)
        else:
            tensor.mul_(0.05 if name.endswith(("word_embeddings.weight", "final_linear.weight")) else 0.3)
    return weights


def copies(config: TokenformerConfig, times: dict[str, int]) -> dict[str, int]:
    """The new tokens that repeat every token of the last group `times` times."""
    groups = {p: norm_groups(config.stages, p)[config.stages[-1].norm_group] for p in PROJECTIONS}
    return {p: times[p] * (groups[p].stop - groups[p].start) for p in PROJECTIONS}


def counts(most: int) -> st.SearchStrategy[dict[str, int]]:
    each = st.fixed_dictionaries(dict.fromkeys(PROJECTIONS, st.integers(0, most)))
    return each.filter(lambda tokens: any(tokens.values()))


@given(
    activation=st.sampled_from(ACTIVATIONS),
    tied=st.booleans(),
    affine=st.booleans(),
    base=st.fixed_dictionaries(dict.fromkeys(PROJECTIONS, st.integers(8, 16))),
    steps=st.lists(
        st.tuples(st.sampled_from(NORMS), st.sampled_from(INITS), counts(6), counts(2)), min_size=1, max_size=2
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@torch.no_grad()
def test_growing_random_models_in_random_ways(
    activation: str,
    tied: bool,
    affine: bool,
    base: dict[str, int],
    steps: list[tuple[str, str, dict[str, int], dict[str, int]]],
    seed: int,
) -> None:
    config = tiny_config(
        hidden_size=16,  # in smaller models, norms at times divide by almost nothing, and rounding shows
        norm_activation_type=activation,
        tie_word_embeddings=tied,
        affine_block_norms=affine,
        growth_stages=[GrowthStage("base", base).to_dict()],
    )
    ids = some_ids(config)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "base"
        write_checkpoint(path, config, calm_weights(config, seed).items(), {})
        history = [loaded(path)(ids)]
        for number, (norm, init, tokens, times) in enumerate(steps):
            config = load_config(path)
            if init in ("tile", "repeat"):
                tokens = copies(config, times)
            grown = path.with_name(f"grown-{number}")
            try:
                grow(path, grown, tokens, norm=norm, init=init, seed=seed)
            except ConfigError as error:
                assert "no new tokens at all" in str(error) or "zero by zero" in str(error) or "0 tokens" in str(error)
                assert not grown.exists()
                continue
            model, path = loaded(grown), grown
            history.append(model(ids))
            if preserves_function(norm, init, activation):
                torch.testing.assert_close(history[-1], history[-2], atol=FLOAT32_CHANGE, rtol=0)
            for stage in model.config.servable_stages:
                torch.testing.assert_close(model(ids, stage), history[stage], atol=FLOAT32_CHANGE, rtol=0)
            assert (len(history) - 2 in model.config.servable_stages) == (init != "tile")


@pytest.mark.parametrize(("norm", "init", "activation"), [way for way in WAYS if way not in IMPOSSIBLE])
@torch.no_grad()
def test_which_ways_are_exact(norm: str, init: str, activation: str) -> None:
    """In float64, growing twice: nothing moves, or a lot."""
    config = tiny_config(norm_activation_type=activation)
    weights = {name: tensor.double() for name, tensor in tiny_weights(config).items()}
    before = reference(config, weights, torch.float64)(some_ids(config))
    for _ in range(2):
        tokens = copies(config, dict(zip(PROJECTIONS, (1, 2, 1, 3, 1), strict=True)))
        stage = new_stage(config, tokens, None, norm, init)
        weights = dict(grown_tensors(weights.items(), config, stage, init, seed=1))
        config = config.with_stages([*config.stages, stage])
    change = (reference(config, weights, torch.float64)(some_ids(config)) - before).abs().max().item()
    if preserves_function(norm, init, activation):
        assert change < 1e-11
    else:
        assert change > 0.1


@pytest.mark.parametrize("activation", ACTIVATIONS)
@torch.no_grad()
def test_exact_ways_stay_exact_after_each_other(activation: str) -> None:
    """In float64, every pair: the second one meets tau and groups as the first one left them."""
    ways = [(norm, init) for norm in NORMS for init in INITS if preserves_function(norm, init, activation)]
    for pair in itertools.product(ways, repeat=2):
        config = tiny_config(norm_activation_type=activation)
        weights = {name: tensor.double() for name, tensor in tiny_weights(config).items()}
        before = reference(config, weights, torch.float64)(some_ids(config))
        for norm, init in pair:
            tokens = copies(config, dict(zip(PROJECTIONS, (1, 0, 2, 3, 1), strict=True)))
            stage = new_stage(config, tokens, None, norm, init)
            weights = dict(grown_tensors(weights.items(), config, stage, init, seed=1))
            config = config.with_stages([*config.stages, stage])
        after = reference(config, weights, torch.float64)(some_ids(config))
        assert (after - before).abs().max() < 1e-11, pair


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("norm", NORMS)
@torch.no_grad()
def test_golden_models_grow_without_change(tmp_path: Path, name: str, norm: str) -> None:
    case = load_case(name)
    config = case.staged_config() if name in GROWN_CASES else case.config
    write_checkpoint(tmp_path / "golden", config, case.weights.items(), {})
    tokens = {projection: config.token_count(projection) for projection in PROJECTIONS}
    grow(tmp_path / "golden", tmp_path / "grown", tokens, norm=norm)
    model, ids = loaded(tmp_path / "grown"), case.io["input_ids"]
    vocabulary = slice(config.vocab_size)
    for logits in (model(ids), model(ids, -2)):
        torch.testing.assert_close(logits, case.io["logits"][..., vocabulary], atol=TOLERANCE, rtol=0)
    if name in GROWN_CASES:
        torch.testing.assert_close(model(ids, 0), case.io["ungrown_logits"][..., vocabulary], atol=TOLERANCE, rtol=0)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    config = tiny_config()
    files = {"tokenizer.json": b"{}", "chat_template.jinja": b"hello"}
    write_checkpoint(tmp_path / "base", config, tiny_weights(config).items(), files)
    return tmp_path / "base"


ADDED = {"query": 3, "key": 0, "value": 2, "output": 1, "ffn": 5}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_is_written(tmp_path: Path, dtype: str) -> None:
    config = tiny_config(dtype=dtype)
    weights = tiny_weights(config)
    write_checkpoint(tmp_path / "base", config, weights.items(), {"chat_template.jinja": b"hello"}, shard_bytes=1000)
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(b"the same weights once more")
    for name in ("calibration.json", "calibration.md", "calibration-base-reliability.svg"):
        (tmp_path / "base" / name).write_bytes(b"what was measured of the base")
    grown = grow(tmp_path / "base", tmp_path / "grown", ADDED, name="facts_2.0")
    stages = [GrowthStage("base", TOKENS), GrowthStage("facts_2.0", ADDED, None, norm_group=1)]
    assert load_config(tmp_path / "grown").stages == grown.stages == stages
    assert sorted(file.name for file in (tmp_path / "grown").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert (tmp_path / "grown" / "chat_template.jinja").read_bytes() == b"hello"
    for name, tensor in load_file(tmp_path / "grown" / "model.safetensors").items():
        assert tensor.dtype == getattr(torch, dtype)
        old = weights[name]
        assert torch.equal(tensor[: len(old)], old)
        if role := token_tensor(name):
            new = tensor[len(old) :]
            assert len(new) == ADDED[role[0]]
            assert role[1] == "key" or not new.any()
            assert role[1] == "value" or all(row.any() for row in new)


def test_random_tokens_have_the_old_scale_and_a_seed(tmp_path: Path) -> None:
    config = tiny_config()
    weights = {name: 7 * tensor if "key_param" in name else tensor for name, tensor in tiny_weights(config).items()}
    write_checkpoint(tmp_path / "base", config, weights.items(), {})
    tokens = dict.fromkeys(PROJECTIONS, 500)
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        grow(tmp_path / "base", tmp_path / name, tokens, seed=seed)
    grow(tmp_path / "one", tmp_path / "twice", tokens, seed=1)
    one, same, other, twice = (dict(iterate_tensors(tmp_path / n)) for n in ("one", "same", "other", "twice"))
    rows = {name: tensor[-500:] for name, tensor in one.items() if "key_param" in name}
    for name, new in rows.items():
        assert new.std().item() == pytest.approx(weights[name].std(correction=0).item(), rel=0.05)
        assert torch.equal(same[name], one[name])
        assert not torch.equal(other[name], one[name])
        assert abs(torch.corrcoef(torch.stack([new.flatten(), twice[name][-500:].flatten()]))[0, 1]) < 0.1
    first, *others = rows.values()
    assert not any(torch.equal(first, new) for new in others)


def test_tau_is_stored_only_where_it_is_not_the_official_one(base: Path, tmp_path: Path) -> None:
    official = grow(base, tmp_path / "official", ADDED, norm="joint", init="random").stages[-1]
    kept = grow(base, tmp_path / "kept", ADDED, norm="joint").stages[-1]
    assert (official.tau, official.norm_group) == (None, 0)
    assert kept.tau == {projection: math.sqrt(TOKENS[projection]) for projection in PROJECTIONS}
    double = load_config(tmp_path / "kept")
    tiled = grow(
        tmp_path / "kept", tmp_path / "tiled", copies(double, dict.fromkeys(PROJECTIONS, 1)), norm="joint", init="tile"
    )
    assert tiled.stages[-1].tau == {p: pytest.approx(math.sqrt(2 * TOKENS[p])) for p in PROJECTIONS}
    assert tiled.servable_stages == [2]


def test_names_count_up(base: Path, tmp_path: Path) -> None:
    grow(base, tmp_path / "1", ADDED)
    grow(tmp_path / "1", tmp_path / "2", ADDED, name="special")
    assert [s.name for s in grow(tmp_path / "2", tmp_path / "3", ADDED).stages] == [
        "base",
        "grown-1",
        "special",
        "grown-2",
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_the_default_preserves_the_function(norm: str, activation: str) -> None:
    assert preserves_function(norm, default_init(norm, activation), activation)


def test_tokens_are_parsed() -> None:
    assert parse_tokens("ffn=5, query=3") == {"query": 3, "key": 0, "value": 0, "output": 0, "ffn": 5}


def test_kill_9_leaves_nothing_or_a_whole_checkpoint(tmp_path: Path) -> None:
    many = dict.fromkeys(PROJECTIONS, 1500)
    config = tiny_config(hidden_size=256, growth_stages=[GrowthStage("base", many).to_dict()])
    write_checkpoint(tmp_path / "base", config, tiny_weights(config).items(), {})
    assert_survives_kills(grow, tmp_path / "base", tmp_path / "dest" / "grown", many)
