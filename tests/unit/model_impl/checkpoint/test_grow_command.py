"""`tokenformer grow`: its output, its refusals, and the report of `inspect` afterwards."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_impl.checkpoint.grow import grow, parse_tokens
from model_impl.checkpoint.reading import WEIGHTS, CheckpointError, iterate_tensors, load_config
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import PROJECTIONS
from model_impl.reference.logit_change import logit_change
from model_impl.reference.model import ReferenceTokenformer, load_reference
from server.__main__ import main
from tests.support.tiny import tiny_config, tiny_weights


@pytest.fixture
def base(tmp_path: Path) -> Path:
    config = tiny_config()
    write_checkpoint(tmp_path / "base", config, tiny_weights(config).items(), {})
    return tmp_path / "base"


ADDED = {"query": 3, "key": 0, "value": 2, "output": 1, "ffn": 5}
TOKENS_FLAG = "query=3,value=2,output=1,ffn=5"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokens", "query=3,mlp=2"], "--tokens: 'mlp' is no projection; they are query, key, value, output, ffn"),
        (["--tokens", "query=-3"], "--tokens: query=-3 is no count of new tokens, 0 or more"),
        (["--tokens", "query"], "--tokens: query= is no count of new tokens, 0 or more"),
        (["--tokens", "query=1,query=2"], "--tokens: query is named twice"),
        (["--tokens", "query=0,ffn=0"], "--tokens: no new tokens at all"),
        (["--name", "base"], "--name: there is a stage 'base' already"),
        (["--name", "a:b"], "--name: 'a:b' may only have letters, digits, dots, underscores and hyphens"),
        (["--norm", "none"], "--norm: 'none' is unknown; known are grouped, joint"),
        (["--init", "zeros"], "--init: 'zeros' is unknown; known are zero-values, zero-keys, tile, repeat, random"),
        (["--init", "tile"], "--init tile: query needs a multiple of the 4 tokens to copy, not 3"),
        (
            ["--init", "repeat", "--norm", "joint"],
            "--init repeat: query needs a multiple of the 4 tokens to copy, not 3",
        ),
        (
            ["--init", "zero-keys"],
            "--init zero-keys: the new query tokens are a normalisation group of their own, whose keys cannot all be "
            "zero: l2_norm_gelu would divide zero by zero",
        ),
    ],
)
def test_bad_input_is_one_line(base: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    dest = base.with_name("grown")
    assert main(["grow", str(base), str(dest), "--tokens", TOKENS_FLAG, *flags]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {message}\n"
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def test_bad_directories_are_one_line(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = base / "nowhere"
    for source, dest, message in [
        (base, base, f"{base}: is not empty; name a new or empty directory, or remove it"),
        (nowhere, base.with_name("x"), f"{nowhere}: no such checkpoint directory"),
    ]:
        assert main(["grow", str(source), str(dest), "--tokens", TOKENS_FLAG]) == 1
        assert capsys.readouterr().err == f"tokenformer: error: {message}\n"
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"base: tensor sequential.6.final_linear.weight is missing"):
        grow(base, base.with_name("x"), parse_tokens(TOKENS_FLAG))
    assert [path.name for path in base.parent.iterdir()] == ["base"]


@pytest.mark.parametrize("part", ["key", "value"])
def test_weights_that_are_not_finite_are_one_line(base: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"sequential.2.mlp.{part}_param_tokens"
    weights = load_file(base / WEIGHTS)
    weights[name][0, 0] = torch.nan
    save_file(weights, base / WEIGHTS)
    assert main(["grow", str(base), str(base.with_name("x")), "--tokens", TOKENS_FLAG]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"tokenformer: error: tensor {name} holds NaN or infinities: the weights are damaged"
    with pytest.raises(CheckpointError, match=f"tensor {name} holds NaN or infinities"):
        load_reference(base)
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def moved(output: str) -> float:
    *_, line, following = output.splitlines()
    assert following.startswith("next: tokenformer train ")
    assert line.startswith("logits move by at most ")
    assert line.endswith(" (float32, 32 random positions)")
    return float(line.split()[5])


def test_the_command_says_how_far_the_logits_move(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["grow", str(base), "--tokens", TOKENS_FLAG]
    assert main([*command, str(base.with_name("exact"))]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines()[0] == f"{base.with_name('exact')}: stage grown-1 adds {2 * 2 * 8 * 11} parameters"
    assert moved(said.out) < 1e-3
    assert main([*command, str(base.with_name("random")), "--init", "random"]) == 0
    said = capsys.readouterr()
    assert said.err == "--norm grouped --init random changes what a model with l2_norm_gelu computes\n"
    assert moved(said.out) > 0.1


@torch.no_grad()
def logits(path: Path, ids: torch.Tensor) -> torch.Tensor:
    model = ReferenceTokenformer(load_config(path))
    model.load_state_dict(dict(iterate_tensors(path)))
    result: torch.Tensor = model(ids)
    return result


def test_the_measured_change_is_the_largest_of_the_reference(base: Path, tmp_path: Path) -> None:
    grow(base, tmp_path / "grown", ADDED, init="random")
    change = logit_change(base, tmp_path / "grown")
    assert change is not None
    assert change.positions == 32
    ids = torch.randint(11, (1, 32), generator=torch.Generator().manual_seed(0))
    expected = (logits(tmp_path / "grown", ids) - logits(base, ids)).abs().max().item()
    assert change.largest == pytest.approx(expected, rel=1e-5)


def test_inspect_shows_the_stages(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grow(base, tmp_path / "1", ADDED)
    grow(tmp_path / "1", tmp_path / "2", dict.fromkeys(PROJECTIONS, 0) | {"ffn": 5}, init="tile", name="tiled")
    assert main(["inspect", str(tmp_path / "2"), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    facts = [(s["name"], s["group"], s["parameters"], s["retrained"], s["servable"]) for s in stages]
    assert facts == [
        ("base", 0, 2 * 2 * 8 * 31, False, False),
        ("grown-1", 1, 2 * 2 * 8 * 11, False, False),
        ("tiled", 2, 2 * 2 * 8 * 5, True, True),
    ]
    assert stages[1]["tokens"] == ADDED
    assert stages[1]["tau"]["ffn"] == pytest.approx(math.sqrt(5))
    assert main(["inspect", str(tmp_path / "2")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5].split()[-2:] == ["parameters", "servable"]
    assert lines[-3].endswith("352         no: later training changed its tokens")
    assert lines[-2].split()[-2:] == ["160", "yes"]
