"""Growth deltas: the files that split writes, loading, and acceptance by a base."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_impl.checkpoint.delta import DESCRIPTION, TENSORS, check_delta, fingerprint_with, load_delta, split
from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.grow import grow, token_tensor
from model_impl.checkpoint.reading import WEIGHTS, CheckpointError, iterate_tensors, load_config
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig
from server.__main__ import main
from tests.support.grown import ADDED, grown_checkpoint
from tests.support.killing import assert_survives_kills
from tests.support.tiny import tiny_config, tiny_weights

KEYS = "sequential.2.attention.query.key_param_tokens"


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    grown_checkpoint(tmp_path / "grown", stages=3)
    return tmp_path / "grown"


@pytest.fixture
def delta(grown: Path, tmp_path: Path) -> Path:
    return split(grown, tmp_path / "delta").path


def test_training_new_tokens_only_leaves_the_base_its_fingerprint(tmp_path: Path) -> None:
    """The whole way: grow, train what is new, split; the delta names the base that was grown."""
    grown_checkpoint(tmp_path / "base", stages=1)
    grow(tmp_path / "base", tmp_path / "fresh", ADDED[0])
    base, config = load_config(tmp_path / "base"), load_config(tmp_path / "fresh")
    weights = {name: tensor.clone() for name, tensor in iterate_tensors(tmp_path / "fresh")}
    for name, tensor in weights.items():
        if role := token_tensor(name):
            tensor[base.token_count(role[0]) :] += torch.randn(config.stages[1].tokens[role[0]], 24)
    write_checkpoint(tmp_path / "trained", config, weights.items(), {}, shard_bytes=20000)
    delta = split(tmp_path / "trained", tmp_path / "delta")
    assert delta.base_fingerprint == fingerprint(tmp_path / "base") == fingerprint(tmp_path / "trained", stage=0)
    check_delta(delta, base, fingerprint(tmp_path / "base"))
    weights[KEYS][0] += 1
    write_checkpoint(tmp_path / "disturbed", config, weights.items(), {})
    assert fingerprint(tmp_path / "disturbed", stage=0) != delta.base_fingerprint


def test_base_and_delta_have_the_fingerprint_of_the_stage(grown: Path, tmp_path: Path) -> None:
    grown_checkpoint(tmp_path / "two", stages=2)
    delta = split(grown, tmp_path / "delta")
    assert fingerprint_with(tmp_path / "two", delta) == fingerprint(grown)
    grown_checkpoint(tmp_path / "one", stages=1)
    grown_checkpoint(tmp_path / "sibling", stages=2, growth_seed=5)
    siblings = [split(tmp_path / name, tmp_path / f"{name}-delta") for name in ("two", "sibling")]
    found = [fingerprint_with(tmp_path / "one", sibling) for sibling in siblings]
    assert siblings[0].base_fingerprint == siblings[1].base_fingerprint
    assert found == [fingerprint(tmp_path / "two"), fingerprint(tmp_path / "sibling")]
    assert found[0] != found[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_delta_in_16_bits_has_the_fingerprint_of_its_stage(dtype: str, tmp_path: Path) -> None:
    for stages, name in ((1, "base"), (2, "grown")):
        grown_checkpoint(tmp_path / name, stages, dtype=dtype)
    delta = split(tmp_path / "grown", tmp_path / "delta")
    assert fingerprint_with(tmp_path / "base", delta) == fingerprint(tmp_path / "grown")


@pytest.mark.parametrize("name", ["grown-1", "grown-2"])
def test_a_delta_is_the_new_rows(grown: Path, tmp_path: Path, name: str) -> None:
    config, whole = load_config(grown), dict(iterate_tensors(grown))
    index = [stage.name for stage in config.stages].index(name)
    delta = split(grown, tmp_path / "delta", name)
    assert delta == load_delta(tmp_path / "delta")
    assert (delta.name, delta.stage) == (name, config.stages[index])
    assert delta.base_stages == ("base", "grown-1")[:index]
    assert delta.base_fingerprint == fingerprint(grown, index - 1)
    tensors = dict(delta.tensors())
    assert tensors.keys() == {tensor for tensor in whole if token_tensor(tensor)}
    for tensor, rows in tensors.items():
        projection = (token_tensor(tensor) or ("", ""))[0]
        start = config.token_count(projection, index - 1)
        assert len(rows) == ADDED[index - 1][projection]
        assert torch.equal(rows, whole[tensor][start : start + len(rows)])


def test_the_fingerprint_of_a_stage_is_that_of_a_checkpoint_that_ends_there(tmp_path: Path) -> None:
    for stages in (1, 2, 3):
        grown_checkpoint(tmp_path / str(stages), stages, dtype="bfloat16")
    prints = [fingerprint(tmp_path / "3", stage) for stage in range(3)]
    assert prints == [fingerprint(tmp_path / str(stages)) for stages in (1, 2, 3)]
    assert len(set(prints)) == 3


def test_siblings_share_a_base(tmp_path: Path) -> None:
    deltas = []
    for seed in (1, 2):
        grown_checkpoint(tmp_path / f"grown-{seed}", growth_seed=seed)
        deltas.append(split(tmp_path / f"grown-{seed}", tmp_path / f"delta-{seed}"))
    one, other = deltas
    assert one.base_fingerprint == other.base_fingerprint
    assert not torch.equal(dict(one.tensors())[KEYS], dict(other.tensors())[KEYS])


def test_what_cannot_be_split_is_one_line(grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grow(grown, tmp_path / "tiled", dict.fromkeys(PROJECTIONS, 0) | {"ffn": 21}, init="tile")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "precious").write_text("x")
    before = sorted(path.name for path in tmp_path.iterdir())
    for source, dest, flags, message in [
        (grown, "x", ["--stage", "base"], f"{grown}: stage 'base' is the first one, there is nothing it grew on"),
        (grown, "x", ["--stage", "no"], f"{grown}: has no stage 'no'; its stages are base, grown-1, grown-2"),
        (
            tmp_path / "tiled",
            "x",
            ["--stage", "grown-2"],
            f"{tmp_path / 'tiled'}: stage 'grown-3' changed earlier tokens, so 'grown-2' has no base left",
        ),
        (
            tmp_path / "tiled",
            "x",
            [],
            f"{tmp_path / 'tiled'}: stage 'grown-3' changed earlier tokens, so 'grown-3' has no base left",
        ),
        (grown, "occupied", [], f"{occupied}: is not empty; name a new or empty directory, or remove it"),
        (tmp_path / "no", "x", [], f"{tmp_path / 'no'}: no such checkpoint directory"),
    ]:
        assert main(["split", str(source), str(tmp_path / dest), *flags]) == 1
        assert capsys.readouterr().err == f"tokenformer: error: {message}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_command_writes_a_delta(grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(grown), str(tmp_path / "delta"), "--stage", "grown-1"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'delta'}: stage grown-1 over the base {fingerprint(grown, 0)}\n"
    assert sorted(file.name for file in (tmp_path / "delta").iterdir()) == [DESCRIPTION, TENSORS]


def described(**changes: Any) -> Callable[[Path], None]:
    def change(delta: Path) -> None:
        entries = json.loads((delta / DESCRIPTION).read_text()) | changes
        kept = {name: value for name, value in entries.items() if value is not None}
        (delta / DESCRIPTION).write_text(json.dumps(kept))

    return change


def stage_with(**changes: Any) -> Callable[[Path], None]:
    def change(delta: Path) -> None:
        stage = json.loads((delta / DESCRIPTION).read_text())["stage"]
        described(stage=stage | changes)(delta)

    return change


def stored(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def store(delta: Path) -> None:
        tensors = load_file(delta / TENSORS)
        change(tensors)
        save_file(tensors, delta / TENSORS)

    return store


def write(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(delta: Path) -> None:
        (delta / name).write_bytes(content((delta / name).read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (described(format="lora"), f"{DESCRIPTION}: format is 'lora', not 'tokenformer-growth'"),
        (described(version=2), f"{DESCRIPTION}: version 2 is unknown; 1 is known"),
        (described(stage=None), f"{DESCRIPTION}: stage is missing"),
        (described(base_fingerprint=None), f"{DESCRIPTION}: base_fingerprint is missing"),
        (described(base_fingerprint="abc"), f"{DESCRIPTION}: base_fingerprint 'abc' is no fingerprint"),
        (described(base_fingerprint=7), f"{DESCRIPTION}: base_fingerprint 7 is no fingerprint"),
        (described(base_stages="base"), f"{DESCRIPTION}: base_stages is no list of names"),
        (described(num_hidden_layers="2"), f"{DESCRIPTION}: num_hidden_layers must be an integer from 1"),
        (described(stage=[1]), f"{DESCRIPTION}: stage is malformed ("),
        (stage_with(tokens={"query": 1}), f"{DESCRIPTION}: growth_stages: tokens must name each of query"),
        (stage_with(tokens=3), f"{DESCRIPTION}: stage is malformed ("),
        (stage_with(name=3), f"{DESCRIPTION}: growth_stages: a stage's name must be"),
        (stage_with(retrained=True), f"{DESCRIPTION}: stage 'grown-2' is none that a delta can hold"),
        (stage_with(rank=3), f"{DESCRIPTION}: growth_stages: a stage has name, tokens"),
        (described(num_hidden_layers=3), f"{TENSORS}: tensor sequential.4.attention.query.key_param_tokens is missing"),
        (described(num_hidden_layers=1), f"{TENSORS}: tensor sequential.3.attention.key.key_param_tokens is surplus"),
        (described(hidden_size=32), f"{TENSORS}: tensor {KEYS} has shape [6, 24], not [6, 32]"),
        (stored(lambda tensors: tensors.pop(KEYS)), f"{TENSORS}: tensor {KEYS} is missing"),
        (stored(lambda tensors: tensors.update(extra=torch.ones(1))), f"{TENSORS}: tensor extra is surplus"),
        (write(TENSORS, lambda content: content[:-4]), f"{TENSORS}: damaged safetensors file"),
        (write(TENSORS, lambda content: b""), f"{TENSORS}: damaged safetensors file"),
        (write(DESCRIPTION, lambda content: content[:-9]), f"{DESCRIPTION}: not JSON"),
        (lambda delta: (delta / TENSORS).unlink(), f"{TENSORS}: No such file or directory"),
        (lambda delta: (delta / DESCRIPTION).unlink(), f"{DESCRIPTION}: No such file or directory"),
    ],
)
def test_a_wrong_delta_is_one_line(delta: Path, change: Callable[[Path], Any], message: str) -> None:
    load_delta(delta)
    change(delta)
    with pytest.raises(CheckpointError) as error:
        load_delta(delta)
    assert str(error.value).startswith(f"{delta}/{message}")
    assert "\n" not in str(error.value)


def test_a_missing_delta_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no such growth delta directory$"):
        load_delta(tmp_path / "nowhere")


def base_config(**changes: Any) -> TokenformerConfig:
    entries = {"growth_stages": [GrowthStage("base", ADDED[0]).to_dict()], "hidden_size": 24}
    return tiny_config(**(entries | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 32}, "grew on a base with hidden_size 24, but this one has 32"),
        ({"num_hidden_layers": 3}, "grew on a base with num_hidden_layers 2, but this one has 3"),
        (
            {"norm_activation_type": "softmax"},
            "grew on a base with norm_activation_type l2_norm_gelu, but this one has softmax",
        ),
        ({}, "growth_stages: norm_group must start at 0 and rise by at most 1 from stage to stage"),
    ],
)
def test_a_base_that_does_not_fit_is_one_line(delta: Path, changes: dict[str, Any], message: str) -> None:
    loaded = load_delta(delta)
    with pytest.raises(CheckpointError) as error:
        check_delta(loaded, base_config(**changes), loaded.base_fingerprint)
    assert str(error.value) == f"{delta}: {message}"


def test_another_base_is_named(grown: Path, delta: Path, tmp_path: Path) -> None:
    grown_checkpoint(tmp_path / "other", base_seed=1)
    config, found = load_config(tmp_path / "other"), fingerprint(tmp_path / "other")
    check_delta(load_delta(delta), config, fingerprint(grown, 1))
    with pytest.raises(CheckpointError) as error:
        check_delta(load_delta(delta), config, found)
    expected = fingerprint(grown, 1)[:12]
    assert str(error.value) == (
        f"{delta}: grew on another base: fingerprint {expected} (stages base, grown-1), "
        f"but this one is {found[:12]} (stages base, grown-1)"
    )


def test_keys_of_zero_are_refused(grown: Path, delta: Path) -> None:
    stored(lambda tensors: tensors[KEYS].zero_())(delta)
    base = load_config(grown)
    base.growth_stages = [stage.to_dict() for stage in base.stages[:2]]
    with pytest.raises(CheckpointError, match=f"{KEYS} is all zero, so l2_norm_gelu would divide zero by zero"):
        check_delta(load_delta(delta), base, fingerprint(grown, 1))


@pytest.mark.parametrize("name", [KEYS, KEYS.replace("key_param", "value_param")])
def test_values_that_are_not_finite_are_refused(grown: Path, delta: Path, name: str) -> None:
    """Neither served nor made: a stage that has them cannot be split off."""
    stored(lambda tensors: tensors[name][-1].fill_(torch.nan))(delta)
    base = load_config(grown)
    base.growth_stages = [stage.to_dict() for stage in base.stages[:2]]
    with pytest.raises(CheckpointError, match=f"^{delta}: tensor {name} holds NaN or infinities"):
        check_delta(load_delta(delta), base, fingerprint(grown, 1))
    weights = load_file(grown / WEIGHTS)
    weights[name][-1] = torch.inf
    save_file(weights, grown / WEIGHTS)
    with pytest.raises(CheckpointError, match=f"tensor {name} holds NaN or infinities"):
        split(grown, delta.with_name("again"))
    assert not delta.with_name("again").exists()


def test_kill_9_leaves_nothing_or_a_whole_delta(tmp_path: Path) -> None:
    stages = [
        GrowthStage("base", dict.fromkeys(PROJECTIONS, 1)),
        GrowthStage("grown", dict.fromkeys(PROJECTIONS, 3000), norm_group=1),
    ]
    config = tiny_config(hidden_size=256, growth_stages=[stage.to_dict() for stage in stages])
    write_checkpoint(tmp_path / "grown", config, tiny_weights(config).items(), {})
    assert_survives_kills(split, tmp_path / "grown", tmp_path / "dest" / "delta")
