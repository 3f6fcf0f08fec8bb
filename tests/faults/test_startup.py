"""What cannot be served is said in one line, with a non-zero exit code and no traceback."""

import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from model_impl.checkpoint_writer import write_checkpoint
from tests.engine.bytes_model import byte_tokenizer
from tests.servers import command_line, user_environment
from tests.unit.tiny import tiny_config, tiny_weights

pytestmark = pytest.mark.server

TOKENIZER_FILES = {
    "tokenizer.json": byte_tokenizer(),
    "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}',
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = tiny_config()
    write_checkpoint(tmp_path / "checkpoint", config, tiny_weights(config).items(), TOKENIZER_FILES)
    return tmp_path / "checkpoint"


def refusal(*arguments: object) -> str:
    """The one error line of a `tokenformer serve` that must fail."""
    command = command_line("serve", *arguments)
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=user_environment())
    assert result.returncode not in (0, None), result.stderr
    assert result.returncode > 0, f"killed by signal {-result.returncode}"
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("tokenformer: error:")]
    assert len(errors) == 1, result.stderr
    return errors[0]


def refusal_at_once(*arguments: object) -> str:
    """The same for what must be told before vLLM is imported, which takes ten seconds and more."""
    command = command_line("serve", *arguments)
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=user_environment())
    assert result.returncode == 1
    assert result.stderr.startswith("tokenformer: error:"), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def edit_config(checkpoint: Path, **changes: object) -> None:
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_wrong_path(tmp_path: Path) -> None:
    line = refusal_at_once(tmp_path / "nowhere")
    assert f"{tmp_path / 'nowhere'}: no such checkpoint directory" in line


def test_a_directory_that_is_no_checkpoint(tmp_path: Path) -> None:
    assert "config.json" in refusal_at_once(tmp_path)


def test_unknown_activation(checkpoint: Path) -> None:
    edit_config(checkpoint, norm_activation_type="relu")
    line = refusal_at_once(checkpoint)
    assert "norm_activation_type" in line
    assert "'relu'" in line


def test_another_kind_of_model(checkpoint: Path) -> None:
    edit_config(checkpoint, model_type="llama")
    assert "model_type is 'llama'" in refusal_at_once(checkpoint)


def test_cut_off_weights(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)
    line = refusal_at_once(checkpoint)
    assert "model.safetensors" in line
    assert "damaged" in line


def test_garbled_header(checkpoint: Path) -> None:
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", 2**62))
    assert "damaged" in refusal_at_once(checkpoint)


def test_missing_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert "model.safetensors" in refusal_at_once(checkpoint)


def test_all_zero_keys(checkpoint: Path) -> None:
    name = "sequential.3.attention.key.key_param_tokens"
    weights = load_file(checkpoint / "model.safetensors")
    weights[name] = weights[name] * 0
    save_file(weights, checkpoint / "model.safetensors")
    line = refusal(checkpoint)
    assert name in line
    assert "all zero" in line


def test_a_tensor_too_few_and_one_too_many(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    name = "sequential.2.mlp.value_param_tokens"
    save_file({other: tensor for other, tensor in weights.items() if other != name}, file)
    assert f"{name} is missing" in refusal_at_once(checkpoint)
    save_file(weights | {"extra": weights[name].clone()}, file)
    assert "extra is surplus" in refusal_at_once(checkpoint)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_port_in_use(checkpoint: Path, taken_port: int) -> None:
    line = refusal(checkpoint, "--port", taken_port, "--kv-cache-memory-bytes", 16 << 20)
    assert str(taken_port) in line
    assert "in use" in line


def test_what_vllm_refuses(checkpoint: Path) -> None:
    assert "max_model_len" in refusal(checkpoint, "--max-model-len", 64)  # of 32 positions


def test_no_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    assert "tokenizer.json" in refusal(checkpoint)


def test_wrong_flag(checkpoint: Path) -> None:
    command = command_line("serve", checkpoint, "--no-such-flag")
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=user_environment())
    assert result.returncode == 2
    assert "--no-such-flag" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_shard_that_nobody_copied(tmp_path: Path, checkpoint: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors" in refusal_at_once(copy)
