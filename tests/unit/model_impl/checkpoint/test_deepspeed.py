"""Weights as DeepSpeed stores them: a whole model is converted, a part of one is refused and says what is missing."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from model_impl.checkpoint.convert import convert
from model_impl.checkpoint.reading import WEIGHTS, CheckpointError
from tests.support.tiny import assert_same, official_keys, tiny_config, tiny_weights, write_source


def test_a_whole_deepspeed_model_is_converted(tmp_path: Path) -> None:
    config = tiny_config(dtype="float16")
    weights = tiny_weights(config)
    stored = {f"module.{name}": tensor for name, tensor in weights.items()}
    stored["module.sequential.2.attention.rotary_emb.inv_freq"] = torch.ones(2)
    state = {
        "module": stored,
        "optimizer": None,
        "param_shapes": [{"x": torch.Size([2])}],
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.get_state(),
        "loss": np.float32(1.5),
        "mp_world_size": 1,
    }
    tag = tmp_path / "global_step5"
    (tag / "configs").mkdir(parents=True)
    torch.save(state, tag / "mp_rank_00_model_states.pt")
    (tag / "configs" / "tiny.yml").write_text(yaml.safe_dump(official_keys(config)))
    (tag / "configs" / "local_setup.yml").write_text("data-path: data\n")
    convert(tag, tmp_path / "model")
    assert_same(load_file(tmp_path / "model" / WEIGHTS), weights)


@pytest.mark.parametrize(
    ("others", "parts", "message"),
    [
        (["mp_rank_01"], None, "one of 2 model-parallel parts; merge them first"),
        (["mp_rank_02"], None, "one of 3 model-parallel parts, of which mp_rank_01_model_states.pt is missing; merge"),
        ([], 2, "one of 2 model-parallel parts, of which mp_rank_01_model_states.pt is missing; merge them first"),
        (["mp_rank_01"], 4, "parts, of which 2 are missing, first mp_rank_02_model_states.pt; merge them first"),
        (["mp_rank_0"], 1, "mp_rank_00_model_states.pt and mp_rank_0_model_states.pt are the same model-parallel part"),
    ],
)
def test_a_part_of_a_deepspeed_checkpoint(tmp_path: Path, others: list[str], parts: int | None, message: str) -> None:
    """Its tensors alone may have the shapes of a whole model, whose tokens are divided among the ranks."""
    config = tiny_config()
    source = write_source(tmp_path / "source", config, {})
    state = {"module": tiny_weights(config), "mp_world_size": parts}
    torch.save(state, source / "mp_rank_00_model_states.pt")
    for other in others:
        torch.save(state, source / f"{other}_model_states.pt")
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        convert(source / "mp_rank_00_model_states.pt", tmp_path / "model")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_later_part_and_a_renamed_one(tmp_path: Path) -> None:
    config = tiny_config()
    source = write_source(tmp_path / "source", config, {"module": tiny_weights(config), "mp_world_size": 2})
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: one of 2 model-parallel parts; merge them first"):
        convert(source, tmp_path / "model")
    (source / "pytorch_model.bin").rename(source / "mp_rank_01_model_states.pt")
    with pytest.raises(CheckpointError, match=r"one of 2 .*, of which mp_rank_00_model_states.pt is missing"):
        convert(source / "mp_rank_01_model_states.pt", tmp_path / "model")


@pytest.mark.parametrize("kind", ["model", "optim"])
def test_a_part_of_zero(tmp_path: Path, kind: str) -> None:
    source = write_source(tmp_path / "source", tiny_config(), {})
    file = (source / "pytorch_model.bin").rename(source / f"zero_pp_rank_0_mp_rank_00_{kind}_states.pt")
    with pytest.raises(CheckpointError, match=r"one of several ZeRO parts; merge them first"):
        convert(file, tmp_path / "model")
