"""Official checkpoints in all their forms become the same directory; everything else is refused in one line."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_impl.checkpoint.convert import convert
from model_impl.checkpoint.official_config import read_official_config
from model_impl.checkpoint.reading import WEIGHTS, CheckpointError, iterate_tensors, load_config
from model_impl.config import ACTIVATIONS, ConfigError
from model_impl.reference.model import ReferenceTokenformer
from server.__main__ import main
from tests.support.golden_cases import CASES, GOLDEN, load_case
from tests.support.tiny import TOKENS, assert_same, tiny_config, tiny_weights, write_source

KEYS = "sequential.3.attention.query.key_param_tokens"


@pytest.mark.parametrize("name", CASES)
def test_golden_cases_convert_with_their_configuration(tmp_path: Path, name: str) -> None:
    convert(GOLDEN / name / WEIGHTS, tmp_path / "model")
    case = load_case(name)
    assert_same(dict(iterate_tensors(tmp_path / "model")), case.weights)
    assert load_config(tmp_path / "model").stages == case.config.stages


def test_torch_pickle_equals_safetensors(tmp_path: Path) -> None:
    case = load_case("01_base_l2gelu")
    convert(case.path / "pytorch_model.bin", tmp_path / "model")
    assert_same(load_file(tmp_path / "model" / WEIGHTS), case.weights)
    config = load_config(tmp_path / "model")
    assert (config.vocab_size, config.padded_vocab_size, config.max_position_embeddings) == (371, 384, 128)
    assert (config.num_attention_heads, config.rotary_dim, config.dtype) == (4, 4, "float32")


def test_sharded_source_and_destination(tmp_path: Path) -> None:
    config = tiny_config(dtype="bfloat16")
    weights = tiny_weights(config)
    source = write_source(tmp_path / "source", config, weights)
    convert(source, tmp_path / "sharded", shard_bytes=500)
    assert not (tmp_path / "sharded" / WEIGHTS).exists()
    (tmp_path / "sharded" / "config.json").unlink()
    convert(tmp_path / "sharded", tmp_path / "model", config=source / "config.json")
    assert_same(load_file(tmp_path / "model" / WEIGHTS), weights)


def test_a_file_of_before_the_zip_format(tmp_path: Path) -> None:
    config = tiny_config()
    source = write_source(tmp_path / "source", config, {})
    torch.save(tiny_weights(config), source / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(source, tmp_path / "model")
    assert_same(load_file(tmp_path / "model" / WEIGHTS), tiny_weights(config))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("affine", "tied", "rotary"), [(True, True, 0.5), (False, False, 0.5), (False, True, 1.0)])
@torch.no_grad()
def test_variants_compute_the_same_after_conversion(
    tmp_path: Path, activation: str, affine: bool, tied: bool, rotary: float
) -> None:
    config = tiny_config(
        norm_activation_type=activation,
        affine_block_norms=affine,
        tie_word_embeddings=tied,
        partial_rotary_factor=rotary,
    )
    weights = tiny_weights(config)
    convert(write_source(tmp_path / "source", config, weights), tmp_path / "model")
    ids, logits = torch.tensor([[1, 5, 9, 2]]), []
    for each, state in ((config, weights), (load_config(tmp_path / "model"), load_file(tmp_path / "model" / WEIGHTS))):
        model = ReferenceTokenformer(each)
        model.load_state_dict(state)
        logits.append(model(ids))
    assert torch.isfinite(logits[0]).all()
    assert torch.equal(*logits)


def test_yml_keys_with_dashes_comments_and_exponents(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yml"
    file.write_text(
        """{
  # the official files are flow mappings with comments and a trailing comma
  "num-layers": 2, "hidden-size": 8, "num-attention-heads": 2, "seq-length": 64,
  "pos-emb": "rotary", "rotary-pct": 0.5, "rotary-emb-base": 500, "norm": "layernorm_nonparam",
  "norm_activation_type": "gelu_l2_norm", "layernorm-epsilon": 1e-6, "no-weight-tying": False,
  "vocab-size": 11, "make_vocab_size_divisible_by": 16, "qkv_slot_num": 999,
}"""
    )
    config = tiny_config(max_position_embeddings=64, rope_theta=500.0, layer_norm_eps=1e-6)
    source = write_source(tmp_path / "source", config, tiny_weights(config))
    found = convert(source / "pytorch_model.bin", tmp_path / "model", config=file)
    assert (found.layer_norm_eps, found.rope_theta, found.max_position_embeddings) == (1e-6, 500.0, 64)
    assert found.norm_activation_type == "gelu_l2_norm"
    assert found.stages[0].tokens == TOKENS


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gpt_j_residual": True}, "gpt_j_residual: True is not supported, only False"),
        ({"use_bias_in_attn_linear": True}, "use_bias_in_attn_linear: True"),
        ({"norm": "rmsnorm"}, "norm: 'rmsnorm' is not supported, only layernorm or layernorm_nonparam"),
        ({"final_norm": "layernorm_nonparam"}, "final_norm: "),
        ({"pos_emb": "alibi"}, "pos_emb: 'alibi' is not supported, only rotary"),
        ({"pos_emb": "learned"}, "pos_emb: 'learned'"),
        ({"sliding_window_width": 64}, "sliding_window_width: 64 is not supported, only left out"),
        ({"num_kv_heads": 1}, "num_kv_heads"),
        ({"attention_config": [[["global", "tokenformer"], 1]]}, "attention_config: .* other layers"),
        ({"norm_activation_type": "relu"}, "norm_activation_type: 'relu' is unknown"),
        ({"num_layers": None}, "num_layers: missing"),
        ({"num_layers": "two"}, "num_layers: 'two' is no positive int"),
        ({"hidden_size": 2.5}, "hidden_size: 2.5 is no positive int"),
        ({"rotary_pct": "some"}, "rotary_pct: 'some' is no positive float"),
        ({"vocab_size": None}, "vocab_size: .* a tokenizer is needed"),
        ({"vocab_size": 17}, "vocab_size: 17 ids, but the embedding has 16 rows"),
        ({"padded_vocab_size": 32}, "padded_vocab_size: 32, but the embedding has 16 rows"),
        ({"num_layers": 3}, "tensor sequential.4.attention.query.key_param_tokens is missing"),
        ({"num_layers": 1}, "sequential.4.norm.weight is missing"),
        ({"no_weight_tying": True}, "tensor sequential.6.final_linear.weight is missing"),
        ({"norm": "layernorm"}, "tensor sequential.2.input_layernorm.weight is missing"),
        ({"hidden_size": 16}, r"word_embeddings.weight has shape \[16, 8\], not \[16, 16\]"),
    ],
)
def test_a_config_that_cannot_be_served(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    source = write_source(tmp_path / "source", tiny_config(), tiny_weights(tiny_config()), **keys)
    with pytest.raises((ConfigError, CheckpointError), match=message) as error:
        convert(source, tmp_path / "model")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def edited(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    weights: dict[str, Any] = tiny_weights(tiny_config())
    for name, tensor in changes.items():
        weights[name] = tensor
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({KEYS: None}, f"tensor {KEYS} is missing"),
        ({"sequential.2.mlp.bias": torch.ones(8)}, "tensor sequential.2.mlp.bias is surplus"),
        ({"sequential.2.mlp.inv_freq": torch.ones(8)}, "tensor sequential.2.mlp.inv_freq is surplus"),
        ({KEYS: torch.ones(5, 8)}, "query: 4 parameter tokens in layer 0, but 5 in layer 1"),
        ({KEYS.replace("key_param", "value_param"): torch.ones(5, 8)}, r"shape \[5, 8\], not \[4, 8\]"),
        ({KEYS: torch.ones(4)}, r"shape \[4\], but is a matrix"),
        ({KEYS: torch.zeros(4, 8)}, "key tokens 0 to 3 are all zero"),
        ({KEYS: torch.ones(4, 8).index_fill(1, torch.tensor(7), torch.nan)}, f"tensor {KEYS} holds NaN or infinities"),
        ({KEYS: torch.ones(4, 8).half()}, "one dtype, here torch.float32"),
        ({KEYS: torch.ones(4, 8).double()}, "is torch.float64; float32, float16 or bfloat16 is needed"),
        ({f"module.{KEYS}": torch.ones(4, 8)}, "is there twice"),
        ({"sequential.2.count": 3}, "is no tensor but int"),
    ],
)
def test_weights_that_cannot_be_served(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = write_source(tmp_path / "source", tiny_config(), edited(**changes))
    with pytest.raises(CheckpointError, match=message) as error:
        convert(source, tmp_path / "model")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_holds_code_is_not_run(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", tiny_config(), {})
    torch.save({"sequential.0": Malicious(tmp_path / "hacked")}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"refused, not a file of plain weights \(it asks for posix.mkdir\)"):
        convert(source, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("content", [b"", b"not a torch file", "cut"])
def test_a_damaged_torch_file(tmp_path: Path, content: bytes | str) -> None:
    source = write_source(tmp_path / "source", tiny_config(), tiny_weights(tiny_config()))
    file = source / "pytorch_model.bin"
    file.write_bytes(content if isinstance(content, bytes) else file.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: .*(damaged|no torch file)") as error:
        convert(source, tmp_path / "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "holds no tensors"), ([1], "no state dict but list"), ({"module": None}, "a pipeline-parallel checkpoint")],
)
def test_a_torch_file_without_weights(tmp_path: Path, content: Any, message: str) -> None:
    source = write_source(tmp_path / "source", tiny_config(), content)
    with pytest.raises(CheckpointError, match=message):
        convert(source, tmp_path / "model")


def test_finding_the_config(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(CheckpointError, match=r"found none; name it with --config"):
        read_official_config(source)
    (source / "one.yml").write_text("num_layers: 1")
    (source / "other.json").write_text('{"not": "a config"}')
    assert read_official_config(source) == {"num_layers": 1}
    (source / "two.yml").write_text("num-layers: 2")
    with pytest.raises(CheckpointError, match=r"found one.yml, two.yml"):
        read_official_config(source)
    assert read_official_config(source, source / "two.yml") == {"num_layers": 2}
    for text in ("{", "- 1", ""):
        (source / "two.yml").write_text(text)
        with pytest.raises(CheckpointError, match=r"two.yml: (neither yml nor json|holds no keys)"):
            read_official_config(source, source / "two.yml")


def test_the_command_reports_the_model_or_the_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config()
    source = write_source(tmp_path / "source", config, tiny_weights(config))
    assert main(["convert", str(source), str(tmp_path / "model")]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'model'}: 2 layers of 8, float32\n"
    assert "no tokenizer found" in printed.err
    assert main(["convert", str(source), str(tmp_path / "model")]) == 1
    message = f"tokenformer: error: {tmp_path / 'model'}: is not empty; name a new or empty directory, or remove it\n"
    assert capsys.readouterr().err == message
    assert main(["convert", str(tmp_path / "model"), str(tmp_path / "other")]) == 1
    assert "is already a converted checkpoint" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "other")]) == 1
    assert "nowhere: no such file or directory" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_safetensors_file_of_any_name(tmp_path: Path) -> None:
    config = tiny_config()
    source = write_source(tmp_path / "source", config, {})
    save_file(tiny_weights(config), source / "step100.safetensors")
    convert(source / "step100.safetensors", tmp_path / "model")
    assert_same(load_file(tmp_path / "model" / WEIGHTS), tiny_weights(config))
