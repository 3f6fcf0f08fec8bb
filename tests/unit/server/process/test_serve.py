"""A faulty setting is refused in one line before an engine starts, and a faulty file before vLLM is imported."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from safetensors.torch import load_file, save_file

from model_impl.checkpoint.writing import write_checkpoint
from model_impl.engine.log_filter import QUIET
from server.__main__ import main as command
from server.process import serve
from server.process.early_signals import EarlySignals
from tests.support.bytes_model import text_files
from tests.support.tiny import tiny_config, tiny_weights


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = tiny_config()
    write_checkpoint(tmp_path / "checkpoint", config, tiny_weights(config).items(), text_files())
    return tmp_path / "checkpoint"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the engine's process and port, and the environment is as before afterwards."""
    monkeypatch.setattr(serve, "is_worthwhile", lambda: False)
    monkeypatch.setattr(serve, "check_port", lambda argv: None)
    with patch.dict(os.environ):
        yield


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one error line of a `tokenformer serve` that must fail."""
    assert serve.main([*map(str, arguments)], EarlySignals()) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tokenformer: error:")]
    assert len(errors) == 1
    return errors[0]


def refusal_at_once(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The same for what must be told before vLLM is imported, which takes ten seconds and more."""
    assert serve.main([*map(str, arguments)], EarlySignals()) == 1
    said = capsys.readouterr().err
    assert said.startswith("tokenformer: error:")
    assert said.count("\n") == 1
    return said


def edit_config(checkpoint: Path, **changes: object) -> None:
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_directory_that_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "config.json" in refusal_at_once(capsys, tmp_path)


def test_an_unknown_activation_is_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_config(checkpoint, norm_activation_type="relu")
    line = refusal_at_once(capsys, checkpoint)
    assert "norm_activation_type" in line
    assert "'relu'" in line


def test_another_kind_of_model(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_config(checkpoint, model_type="llama")
    assert "model_type is 'llama'" in refusal_at_once(capsys, checkpoint)


def test_cut_off_weights(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = checkpoint / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)
    line = refusal_at_once(capsys, checkpoint)
    assert "model.safetensors" in line
    assert "damaged" in line


def test_weights_with_a_garbled_header_are_damaged(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", 2**62))
    assert "damaged" in refusal_at_once(capsys, checkpoint)


def test_missing_weights_are_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert "model.safetensors" in refusal_at_once(capsys, checkpoint)


def test_a_tensor_too_few_and_one_too_many(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    name = "sequential.2.mlp.value_param_tokens"
    save_file({other: tensor for other, tensor in weights.items() if other != name}, file)
    assert f"{name} is missing" in refusal_at_once(capsys, checkpoint)
    save_file(weights | {"extra": weights[name].clone()}, file)
    assert "extra is surplus" in refusal_at_once(capsys, checkpoint)


def test_a_shard_that_nobody_copied(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors" in refusal_at_once(capsys, copy)


def test_all_zero_keys(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "sequential.3.attention.key.key_param_tokens"
    weights = load_file(checkpoint / "model.safetensors")
    weights[name] = weights[name] * 0
    save_file(weights, checkpoint / "model.safetensors")
    line = refusal(capsys, checkpoint)
    assert name in line
    assert "all zero" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite(checkpoint: Path, value: float, capsys: pytest.CaptureFixture[str]) -> None:
    name = "sequential.2.mlp.value_param_tokens"
    weights = load_file(checkpoint / "model.safetensors")
    weights[name][0, 0] = value
    save_file(weights, checkpoint / "model.safetensors")
    assert f"tensor {name} holds NaN or infinities" in refusal(capsys, checkpoint)


def test_a_missing_tokenizer_is_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint / "tokenizer.json").unlink()
    assert f"{checkpoint}: tokenizer.json is missing; copy it there, or " in refusal_at_once(capsys, checkpoint)
    assert "tokenizer.json is missing" in refusal(capsys, checkpoint, "--tokenizer-mode", "auto")


def test_a_missing_tokenizer_of_another_model_is_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_config(checkpoint, model_type="llama", architectures=["LlamaForCausalLM"])
    for file in checkpoint.glob("*token*"):
        file.unlink()
    assert f"{checkpoint}: tokenizer.json is missing; copy " in refusal_at_once(capsys, checkpoint)


def test_a_damaged_tokenizer_is_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint / "tokenizer.json").write_text("{")
    assert f"{checkpoint / 'tokenizer.json'}: not a tokenizer.json (" in refusal_at_once(capsys, checkpoint)


def test_an_unknown_flag_is_a_usage_error(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        serve.main([str(checkpoint), "--no-such-flag"], EarlySignals())
    assert ended.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_a_trace_corpus_with_messages_that_the_chat_template_refuses(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ raise_exception('no ' ~ messages[0].role) }}")
    corpus = checkpoint.parent / "corpus.jsonl"
    corpus.write_text('{"text": "a"}\n{"messages": [{"role": "tool", "content": "a"}]}\n')
    line = refusal(capsys, checkpoint, "--trace", "--trace-corpus", corpus)
    assert line.endswith(f"{corpus}, line 2: messages: the chat template refuses them: no tool")


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--compilation-config", "{"], "argument --compilation-config/-cc: 1 validation error"),
        (["--enable-auto-tool-choice"], "--enable-auto-tool-choice requires --tool-call-parser"),
        (["--sse-keep-alive-interval", "-1"], "--sse-keep-alive-interval must be a non-negative integer"),
        (["--ssl-certfile", "/nowhere"], "--ssl-certfile: /nowhere is no file"),
    ],
)
def test_the_last_line_says_why_a_flag_of_vllm_is_refused(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], flags: list[str], why: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        serve.main([str(checkpoint), *flags], EarlySignals())
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"tokenformer serve: error: {why}")


ENDED = "It failed. See root cause above. Failed core proc(s): {'EngineCore': %d}"


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (KeyError("invalid tool call parser: x"), "KeyError: invalid tool call parser: x"),
        (ValueError("too long\nand more"), "too long"),
        (RuntimeError(ENDED % 1), "It failed. Failed core proc(s): {'EngineCore': 1}"),
        (RuntimeError(ENDED % -9), serve.OUT_OF_MEMORY),
    ],
)
def test_the_last_line_says_why_a_start_failed_and_a_verbose_log_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: Exception, said: str, quiet: bool
) -> None:
    if quiet:
        monkeypatch.setenv(QUIET, "1")
    assert serve.failed(raised) == 1
    *before, last = capsys.readouterr().err.splitlines()
    assert last == f"tokenformer: error: {said}"
    assert bool(before) is not quiet


def test_an_access_log_of_uvicorn_keeps_its_level(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUIET, "1")
    assert serve.parse([str(checkpoint)]).uvicorn_log_level == "warning"
    assert serve.parse([str(checkpoint), "--no-disable-uvicorn-access-log"]).uvicorn_log_level == "info"


@pytest.mark.parametrize("risk", ["1.5", "-0.1", "nan", "high"])
def test_a_limit_on_the_risk_is_from_0_to_1(checkpoint: Path, capsys: pytest.CaptureFixture[str], risk: str) -> None:
    with pytest.raises(SystemExit):
        serve.main([str(checkpoint), f"--doubt-above={risk}"], EarlySignals())
    assert f"argument --doubt-above: '{risk}' is not from 0 to 1" in capsys.readouterr().err


def test_the_help_of_our_flags_needs_neither_vllm_nor_torch() -> None:
    """Importing them takes ten seconds."""
    program = (
        "import sys; from server.__main__ import main; main(['serve', '--help']); "
        "sys.exit(any(name in sys.modules for name in ('vllm', 'torch', 'transformers')))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert all(
        flag in found.stdout for flag in ("--growth", "--calibration", "--on-doubt", "--api-key-file", "--help=all")
    )


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(["--version"])
    assert capsys.readouterr().out == f"tokenformer-server {importlib.metadata.version('tokenformer-server')}\n"
