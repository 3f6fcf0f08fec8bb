"""Reading a checkpoint: a missing, wrong or damaged part is named in one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import (
    INDEX,
    WEIGHTS,
    CheckpointError,
    check_tensors,
    check_values,
    expected_tensors,
    iterate_tensors,
    load_config,
    tensor_shapes,
)
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import ACTIVATIONS, GrowthStage, TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer
from tests.support.tiny import TOKENS, tiny_config, tiny_weights

KEYS = "sequential.2.attention.query.key_param_tokens"


@pytest.fixture
def config() -> TokenformerConfig:
    return tiny_config()


@pytest.fixture
def checkpoint(tmp_path: Path, config: TokenformerConfig) -> Path:
    write_checkpoint(tmp_path / "model", config, tiny_weights(config).items(), {})
    return tmp_path / "model"


def edit_config(checkpoint: Path, **changes: Any) -> None:
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_expected_tensors_are_the_reference_models(affine: bool, tied: bool) -> None:
    config = tiny_config(affine_block_norms=affine, tie_word_embeddings=tied)
    state = ReferenceTokenformer(config).state_dict()
    assert expected_tensors(config) == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_fingerprint_follows_weights_and_computation_only(
    tmp_path: Path, checkpoint: Path, config: TokenformerConfig
) -> None:
    first = fingerprint(checkpoint)
    assert len(first) == 64
    edit_config(checkpoint, max_position_embeddings=64, eos_token_id=5, rope_theta=10000)
    assert fingerprint(checkpoint) == first
    edit_config(checkpoint, layer_norm_eps=1e-6)
    assert fingerprint(checkpoint) != first
    weights = tiny_weights(config)
    weights[KEYS][1, 2] += 1e-3
    write_checkpoint(tmp_path / "other", config, weights.items(), {})
    assert fingerprint(tmp_path / "other") != first


def test_wrong_tensors_are_named(config: TokenformerConfig) -> None:
    shapes = expected_tensors(config)
    check_tensors(config, shapes)
    with pytest.raises(CheckpointError, match=f"tensor {KEYS} is missing"):
        check_tensors(config, {name: shape for name, shape in shapes.items() if name != KEYS})
    with pytest.raises(CheckpointError, match=r"shape \[3, 8\], not \[4, 8\]"):
        check_tensors(config, shapes | {KEYS: (3, 8)})
    with pytest.raises(CheckpointError, match=r"tensor extra\.bias is surplus"):
        check_tensors(config, shapes | {"extra.bias": (8,)})


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_all_zero_keys_of_a_group(activation: str) -> None:
    stages = [GrowthStage("base", TOKENS), GrowthStage("grown", TOKENS, norm_group=1)]
    grouped = tiny_config(growth_stages=[stage.to_dict() for stage in stages], norm_activation_type=activation)
    joint = tiny_config(
        growth_stages=[GrowthStage("base", TOKENS).to_dict(), GrowthStage("grown", TOKENS).to_dict()],
        norm_activation_type=activation,
    )
    keys = torch.ones(8, 8)
    keys[4:] = 0
    check_values(joint, KEYS, keys)
    check_values(grouped, KEYS.replace("key_param", "value_param"), keys)
    if activation == "softmax":
        check_values(grouped, KEYS, keys)
    else:
        with pytest.raises(CheckpointError, match=f"{KEYS}: key tokens 4 to 7 are all zero"):
            check_values(grouped, KEYS, keys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", [KEYS, "sequential.0.word_embeddings.weight", "sequential.5.norm.bias"])
def test_a_value_that_is_not_finite(name: str, value: float, dtype: torch.dtype) -> None:
    """The position of the value does not matter: rows are read in blocks, by several threads."""
    config = tiny_config()
    tensor = torch.linspace(-1, 1, 96 * 1024, dtype=dtype).view(96, 1024)
    check_values(config, name, tensor)
    for place in torch.randint(tensor.numel(), (20,), generator=torch.Generator().manual_seed(0)):
        broken = tensor.clone()
        broken.view(-1)[place] = value
        with pytest.raises(CheckpointError, match=f"^tensor {re.escape(name)} holds NaN or infinities"):
            check_values(config, name, broken)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_largest_values_are_finite(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    check_values(tiny_config(), KEYS, torch.full((8, 64), limits.max, dtype=dtype))
    check_values(tiny_config(), KEYS, torch.full((8, 64), limits.min, dtype=dtype))


def test_an_unreadable_directory_is_refused_with_the_reason(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint directory"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="No such file"):
        load_config(tmp_path)
    (checkpoint / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="holds neither"):
        tensor_shapes(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt_neox"}, "model_type is 'gpt_neox', not 'tokenformer'"),
        ({"norm_activation_type": "relu"}, "norm_activation_type: 'relu' is unknown; known are l2_norm_gelu"),
        ({"hidden_size": "8"}, "hidden_size is '8', which is no int"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, which is no int"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, but must be at least 1"),
        ({"growth_stages": [{"name": "base"}]}, "growth_stages: a stage has"),
        ({"growth_stages": [7]}, "config.json: "),
        ({"vocab_size": 17}, "vocab_size: must be positive and at most padded_vocab_size"),
    ],
)
def test_a_wrong_config_is_one_clear_line(checkpoint: Path, change: dict[str, Any], message: str) -> None:
    edit_config(checkpoint, **change)
    with pytest.raises(CheckpointError, match=message) as error:
        load_config(checkpoint)
    assert str(checkpoint / "config.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_config_that_is_no_json(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_config(checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: data[:-1], "bytes long, but its header describes"),
        (lambda data: data + b"x", "bytes long, but its header describes"),
        (lambda data: data[:20], "header is cut off"),
        (lambda data: data[:8] + b"x" + data[9:], "damaged safetensors file"),
        (lambda data: data.replace(b"[4,8]", b"[5,8]", 1), "header contradicts itself"),
        (lambda data: data.replace(b'"F32"', b'"I32"', 1), "stored as I32"),
        (lambda data: b"", "damaged safetensors file"),
    ],
)
def test_a_damaged_weight_file_is_one_clear_line(checkpoint: Path, content: Any, message: str) -> None:
    file = checkpoint / WEIGHTS
    file.write_bytes(content(file.read_bytes()))
    for read in (tensor_shapes, fingerprint, lambda path: list(iterate_tensors(path))):
        with pytest.raises(CheckpointError, match=message) as error:
            read(checkpoint)
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gone.safetensors", "../model/config.json"])
def test_an_index_names_only_files_beside_it(checkpoint: Path, name: str) -> None:
    (checkpoint / WEIGHTS).unlink()
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": {KEYS: name}}))
    with pytest.raises(CheckpointError, match="not in the directory"):
        tensor_shapes(checkpoint)
