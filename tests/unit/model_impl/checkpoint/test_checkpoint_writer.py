"""Writing a checkpoint: all of the given content is written, or nothing."""

import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import (
    INDEX,
    WEIGHTS,
    CheckpointError,
    expected_tensors,
    iterate_tensors,
    load_config,
)
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import DTYPES, GrowthStage, TokenformerConfig
from model_impl.hf_config import HuggingFaceConfig
from tests.support.paths import ROOT
from tests.support.tiny import TOKENS, assert_same, tiny_config, tiny_weights

KEYS = "sequential.2.attention.query.key_param_tokens"


@pytest.fixture
def config() -> TokenformerConfig:
    return tiny_config()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_written_checkpoint_reads_back_the_same(tmp_path: Path, dtype: str) -> None:
    config = tiny_config(dtype=dtype, eos_token_id=3)
    weights = tiny_weights(config)
    write_checkpoint(tmp_path / "model", config, reversed(weights.items()), {"notes.txt": b"hello"})
    assert_same(load_file(tmp_path / "model" / WEIGHTS), weights)
    assert_same(dict(iterate_tensors(tmp_path / "model")), weights)
    loaded = load_config(tmp_path / "model")
    assert loaded == config and loaded.dtype == dtype
    registered = HuggingFaceConfig.from_pretrained(tmp_path / "model")
    assert registered.architectures == ["TokenformerForCausalLM"]
    assert registered.dtype == getattr(torch, dtype)
    assert registered.stages == config.stages
    assert GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id == 3
    assert (tmp_path / "model" / "notes.txt").read_bytes() == b"hello"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_dtype_is_read_under_the_name_that_older_transformers_gave_it(tmp_path: Path) -> None:
    config = tiny_config(dtype="bfloat16")
    write_checkpoint(tmp_path / "model", config, tiny_weights(config).items(), {})
    file = tmp_path / "model" / "config.json"
    file.write_text(file.read_text().replace('"dtype"', '"torch_dtype"'))
    assert load_config(tmp_path / "model").dtype == "bfloat16"


def test_growth_stages_are_kept(tmp_path: Path) -> None:
    tau = dict.fromkeys(TOKENS, 2.5)
    stages = [GrowthStage("base", TOKENS, tau), GrowthStage("grown", TOKENS, None, norm_group=1)]
    config = tiny_config(growth_stages=[stage.to_dict() for stage in stages])
    write_checkpoint(tmp_path / "model", config, tiny_weights(config).items(), {})
    assert load_config(tmp_path / "model").stages == stages


def test_shards_hold_the_same_tensors_as_one_file(tmp_path: Path, config: TokenformerConfig) -> None:
    weights = tiny_weights(config)
    write_checkpoint(tmp_path / "one", config, weights.items(), {})
    write_checkpoint(tmp_path / "many", config, weights.items(), {}, shard_bytes=1000)
    index = json.loads((tmp_path / "many" / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in weights.values())
    shards = [load_file(tmp_path / "many" / file) for file in files]
    assert all(index["weight_map"][name] == file for file, shard in zip(files, shards, strict=True) for name in shard)
    assert_same({name: tensor for shard in shards for name, tensor in shard.items()}, weights)
    assert_same(dict(iterate_tensors(tmp_path / "many")), weights)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "many")


def test_the_writer_holds_one_tensor_at_a_time(tmp_path: Path, config: TokenformerConfig) -> None:
    earlier: list[weakref.ref[torch.Tensor]] = []

    def generate() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in expected_tensors(config).items():
            assert not [reference for reference in earlier if reference() is not None]
            tensor = torch.ones(shape)
            earlier.append(weakref.ref(tensor))
            yield name, tensor
            del tensor

    write_checkpoint(tmp_path / "model", config, generate(), {})
    assert len(earlier) == len(expected_tensors(config))


def broken(change: str) -> dict[str, torch.Tensor]:
    weights = tiny_weights(tiny_config())
    if change == "missing":
        del weights[KEYS]
    elif change == "surplus":
        weights["extra"] = torch.ones(2)
    elif change == "shape":
        weights[KEYS] = weights[KEYS][:3]
    elif change == "dtype":
        weights[KEYS] = weights[KEYS].half()
    elif change == "zero":
        weights[KEYS] = torch.zeros_like(weights[KEYS])
    elif change == "infinite":
        weights["sequential.0.word_embeddings.weight"][-1, -1] = -torch.inf
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "is missing"),
        ("surplus", "extra is surplus"),
        ("shape", r"shape \[3, 8\], not \[4, 8\]"),
        ("dtype", "one dtype, here torch.float32"),
        ("zero", "all zero"),
        ("infinite", "tensor sequential.0.word_embeddings.weight holds NaN or infinities"),
    ],
)
def test_the_writer_refuses_and_leaves_nothing(
    tmp_path: Path, config: TokenformerConfig, change: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path / "model", config, broken(change).items(), {})
    assert list(tmp_path.iterdir()) == []


def test_the_destination_is_never_overwritten(tmp_path: Path, config: TokenformerConfig) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is not empty"):
        write_checkpoint(tmp_path / "full", config, tiny_weights(config).items(), {})
    with pytest.raises(CheckpointError, match="not a directory"):
        write_checkpoint(tmp_path / "file", config, tiny_weights(config).items(), {})
    write_checkpoint(tmp_path / "empty", config, tiny_weights(config).items(), {})
    assert (tmp_path / "empty" / WEIGHTS).is_file()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious"]


INTERRUPTED = """
import sys, time
from model_impl.checkpoint.writing import write_checkpoint
from server.__main__ import exit_on_sigterm
from tests.support.tiny import assert_same, tiny_config, tiny_weights

def slow(weights):
    for number, item in enumerate(weights.items()):
        if number == 3:
            print("half way", flush=True)
            time.sleep(60)
        yield item

exit_on_sigterm()
config = tiny_config()
write_checkpoint(sys.argv[1], config, slow(tiny_weights(config)), {})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_writing(tmp_path: Path, config: TokenformerConfig, number: signal.Signals) -> None:
    dest = tmp_path / "model"
    command = [sys.executable, "-c", INTERRUPTED, str(dest)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half way\n"
        process.send_signal(number)
        assert process.wait(timeout=20) != 0
    left = [path.name for path in tmp_path.iterdir()]
    if number == signal.SIGKILL:
        assert [name.startswith(".model.partial-") for name in left] == [True]
    else:
        assert left == []
    write_checkpoint(dest, config, tiny_weights(config).items(), {})
    assert_same(load_file(dest / WEIGHTS), tiny_weights(config))
